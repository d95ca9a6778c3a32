"""`python -m benchctl` is `benchctl`."""

from benchctl.cli.app import main

if __name__ == "__main__":
    main()
