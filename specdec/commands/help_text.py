"""Help text: --help that shows the default of every flag that has one. It knows no flag."""

import argparse


class HelpWithDefaults(argparse.RawDescriptionHelpFormatter):
    """Adds "(default: X)" to the help of a flag that has a default, is not a switch, and does not say so itself."""

    def _format_action(self, action: argparse.Action) -> str:
        says_none = (
            action.default is None or action.default is False or argparse.SUPPRESS in (action.default, action.help)
        )
        if action.option_strings and not says_none and "default" not in (action.help or ""):
            many = isinstance(action.default, list | tuple)
            shown = " ".join(map(str, action.default)) if many else str(action.default)
            action.help = f"{action.help or ''} (default: {shown.replace('%', '%%')})".strip()
        return super()._format_action(action)
