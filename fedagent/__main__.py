"""``python -m fedagent``: the command line."""

from fedagent.cli import main

if __name__ == "__main__":
    main()
