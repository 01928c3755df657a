"""What identity tells the audit log: every sign-in, failure, refresh and revocation, with reason and address.

`trail` brings events to a front door, which writes them into its signed chain beside the calls; `attempts` is how handlers say what was tried and
what became of it; `floods` (pure) counts what would be too many lines; `names` knows which typed names may be written down.
"""
