"""`python -m normistral` is the same as `normistral`."""

from normistral.cli.main import main

if __name__ == "__main__":
    main()
