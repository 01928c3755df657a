"""The ways of the command line to sign in, against a real hub with the real kubectl."""
