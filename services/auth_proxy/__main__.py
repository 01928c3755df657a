"""`python -m services.auth_proxy --config FILE`."""

from services.auth_proxy.main import main

main()
