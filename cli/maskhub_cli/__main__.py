from maskhub_cli.main import main

main()
