"""What a chat template sees of the world: a day that does not pass, and chance that falls alike in every run.

A template may write today's date, and choose at random; a prompt must not change at midnight, nor from one run to the
next. It renders nothing (`tokens.py` does).
"""

import calendar
import datetime
import random
import string
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PROMPT_DATE = datetime.date(2024, 7, 26)  # every prompt's "today": what Llama 3's template falls back to
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
FLAGS = ("", *"-_0^#EO")  # what may stand between % and the letter
# strftime as a macro, because transformers 5 hands no function to a template. A flag before the letter (%-d) is kept
# with it. The macro writes nothing but what it is asked for.
STRFTIME_NOW = (
    "{%- macro strftime_now(format) -%}{%- set state = namespace(code='') -%}{%- for sign in format -%}"
    "{%- if state.code and sign in '-_0^#EO' -%}{%- set state.code = state.code ~ sign -%}"
    "{%- elif state.code -%}{{- date_parts.get(state.code ~ sign, state.code ~ sign) -}}{%- set state.code = '' -%}"
    "{%- elif sign == '%' -%}{%- set state.code = '%' -%}{%- else -%}{{- sign -}}{%- endif -%}"
    "{%- endfor -%}{{- state.code -}}{%- endmacro %}"
)


def dated(template: str, date: datetime.date) -> dict[str, Any]:
    """Variables that make a template write `date` for today's: `date_string`, as Llama 3 has it, and a strftime_now.

    The template itself is one of them where it asks for the date. Jinja drops the line break after the macro, so that
    it begins as it did.
    """
    parts = date_parts(date)
    variables: dict[str, Any] = {"date_string": f"{parts['%d']} {parts['%b']} {parts['%Y']}"}
    if "strftime_now" not in template:
        return variables
    return variables | {"chat_template": f"{STRFTIME_NOW}\n{template}", "date_parts": parts}


def date_parts(date: datetime.date) -> dict[str, str]:
    """What every code of strftime gives at midnight of `date`, in English, whatever the locale and the time zone."""
    codes = [f"%{flag}{letter}" for letter in string.ascii_letters for flag in FLAGS]
    parts = {code: date.strftime(code) for code in codes}
    day, month = DAYS[date.weekday()], MONTHS[date.month - 1]
    known = {"A": day, "a": day[:3], "B": month, "b": month[:3], "h": month[:3], "p": "AM", "P": "am"}
    known |= {"c": f"{day[:3]} {month[:3]} {date.day:2} 00:00:00 {date.year}", "X": "00:00:00", "r": "12:00:00 AM"}
    known |= {"x": f"{date:%m/%d/%y}", "s": str(calendar.timegm(date.timetuple())), "z": "", "Z": ""}
    for letter, text in known.items():
        parts |= {f"%{flag}{letter}": text.upper() if flag == "^" else text for flag in FLAGS}
    return parts | {"%%": "%"}


@contextmanager
def settled_chance() -> Iterator[None]:
    """Inside, Python's random numbers (Jinja's filter `random` draws from them) are the same every time."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)
