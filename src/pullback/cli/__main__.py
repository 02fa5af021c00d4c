from pullback.cli import main

main()
