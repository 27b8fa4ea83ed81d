"""Start the command. Signals are answered from here on, before the imports that take seconds."""

from harness.stop_signals import end_at_once, leave_in_order


def main() -> None:
    """Run a command; it ends with its exit code, also when a signal stops it."""
    end_at_once()
    from harness.cli import main as run_command

    leave_in_order()
    try:
        run_command()
    finally:
        end_at_once()  # an error that is raised while the interpreter ends would only be printed


if __name__ == "__main__":
    main()
