"""The version of this build. Imports nothing, so that every process can say it."""

VERSION = "0.1.0"
