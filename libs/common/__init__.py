"""What all services share. Read in this order: `errors`, `resources`, `store`, `bus`, `contracts`, `access`, `runtime`.

Nothing here knows a service; services know each other only through what is here.
"""
