"""Start the command. What must be decided before the imports, which take seconds, is decided here."""

from harness.stop_signals import end_at_once, leave_in_order
from harness.thread_waiting import wait_briefly


def main() -> None:
    """Run a command; it ends with its exit code, also when a signal stops it."""
    end_at_once()
    wait_briefly()
    from harness.cli import main as run_command

    leave_in_order()
    try:
        run_command()
    finally:
        end_at_once()  # an error that is raised while the interpreter ends would only be printed


if __name__ == "__main__":
    main()
