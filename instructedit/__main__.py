"""``python -m instructedit``: the same as the command ``instructedit``."""

from instructedit.cli import main

if __name__ == "__main__":
    main()
