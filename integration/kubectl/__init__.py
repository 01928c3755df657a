"""The real kubectl, newest and oldest that can be had, against the gateway. `front` is the stand-in for the front door."""
