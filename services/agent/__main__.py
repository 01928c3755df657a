"""`python -m services.agent run --hub URL --ca-file FILE …`"""

from services.agent.main import main

main()
