r"""The grammar of the shell language, for lark's LALR parser with its contextual lexer.

The language reads words in two ways. After a command's name a word is a text (`-Name MSExchange*`); where a value is
computed (`$_.Status -eq 'Running'`) it is not. The contextual lexer does this by itself: a terminal is only tried
where the grammar has a place for it. Rules that follow from it:

1. What needs to stand close (`.Name`, `[0]`) says so with a look-behind; white space is ignored everywhere else.
2. Terminals named NO_… are what PowerShell has and this language has not. They are never part of a tree: the lexer
   refuses them by name as soon as it meets one (parse.py).
3. Word processors' dashes and quotes count as plain ones, as in PowerShell: commands are pasted from web pages.
4. A double-quoted text ends at its own quote: `$( … )` inside it may hold quotes, up to three levels.
"""

from __future__ import annotations

from typing import Final

DASH: Final = r"[-\u2013\u2014\u2015]"
DOUBLE: Final = '"\u201c\u201d\u201e'
SINGLE: Final = "'\u2018\u2019\u201a\u201b"
_END: Final = r"(?![^\s;|,(){}\[\]<>&=])"  # a word ends here
_WORD_CHARACTER: Final = rf"[^\s;|,(){{}}<>&`$\"'{DOUBLE}{SINGLE}]"
_NAME: Final = r"(?:\w++|\{[^}\n]+\})"

COMPARISONS: Final = (
    *("eq", "ne", "gt", "ge", "lt", "le", "like", "notlike", "match", "notmatch"),
    *("contains", "notcontains", "in", "notin"),
)
KEYWORDS: Final = (
    *("if", "elseif", "else", "for", "foreach", "while", "do", "until", "switch", "function", "filter", "param"),
    *("begin", "process", "end", "dynamicparam", "try", "catch", "finally", "throw", "trap", "return", "break"),
    *("continue", "class", "enum", "using", "workflow", "parallel", "sequence", "data", "configuration"),
)


def _double() -> str:
    """Double quotes whose `$( … )` may hold double quotes, three levels deep."""
    quoted = rf"[{DOUBLE}](?:[^{DOUBLE}`]|`.|[{DOUBLE}]{{2}})*+[{DOUBLE}]"
    single = rf"[{SINGLE}](?:[^{SINGLE}]|[{SINGLE}]{{2}})*+[{SINGLE}]"
    inner = r"\((?:[^()])*+\)"
    for _ in range(3):
        inner = rf"\((?:[^(){DOUBLE}{SINGLE}`]|`.|{quoted}|{single}|{inner})*+\)"
        quoted = rf"[{DOUBLE}](?:[^{DOUBLE}`$]|`.|[{DOUBLE}]{{2}}|\${inner}|\$(?!\())*+[{DOUBLE}]"
    return quoted


QUOTED: Final = _double()


def _either(words: tuple[str, ...]) -> str:
    return "|".join(sorted(words, key=lambda w: (-len(w), w)))


def _terminal(name: str, priority: int, pattern: str) -> str:
    escaped = pattern.replace("/", r"\/")
    return f"{name}.{priority}: /{escaped}/is\n"


# Twice, for arguments and in expressions: where each has states of its own, the lexer knows what may follow.
_VALUE: Final = r"""
?PLACE: VARIABLE -> variable
      | DOUBLE -> double
      | SINGLE -> single
      | _OPEN _statement _CLOSE -> parenthesis
      | _OPEN_ARRAY body _CLOSE -> array
      | _OPEN_SUB body _CLOSE -> sub
      | _OPEN_HASH pairs _CLOSE_BLOCK -> hash_table
      | _OPEN_BLOCK body _CLOSE_BLOCK -> block
      | PLACE MEMBER -> member
      | PLACE INDEX expression _CLOSE_INDEX -> index
      | PLACE (NO_METHOD | NO_STATIC)
"""

_RULES: Final = r"""
start: body
filter: filter_or

body: [_statement] ((_SEMICOLON | _NEWLINE) [_statement])*
_statement: assignment | pipeline | NO_KEYWORD | NO_CALL | NO_LABEL

assignment: VARIABLE _EQUAL (pipeline | assignment)
pipeline: element (_PIPE (command | NO_KEYWORD | NO_CALL))* [NO_REDIRECTION | NO_CHAIN]
?element: expression | command

command: NAME (parameter | parameter_value | items)*
parameter: PARAMETER
parameter_value: PARAMETER_COLON items

items: item (_COMMA item)*
?item: (WORD | WORD_OF_VARIABLE) -> word
     | NUMBER -> number
     | argument
     | NO_SPLAT | NO_HERE_STRING | NO_SCOPE

// --- expressions, from the weakest operator to the strongest

?expression: logical
logical: comparison (LOGICAL comparison)*
comparison: sum (COMPARISON right)* [NO_OPERATOR | NO_ASSIGNMENT]
?right: sum | bare
bare: BARE (_COMMA BARE)*
sum: product ((PLUS | MINUS) product)*
product: commas ((TIMES | DIVIDE | MODULO) commas)*
commas: unary (_COMMA unary)*
?unary: negated
      | NUMBER -> number
      | primary
      | NO_TYPE | NO_SPLAT | NO_HERE_STRING | NO_SCOPE | NO_OPERATOR | NO_ASSIGNMENT
negated: (NOT | MINUS) unary

pairs: [pair] ((_SEMICOLON | _NEWLINE) [pair])*
pair: (KEY | SINGLE | DOUBLE) _EQUAL items

// --- the expression of -Filter: bare words are properties

filter_or: filter_not (LOGICAL filter_not)*
?filter_not: filter_negated
           | _OPEN filter_or _CLOSE
           | filter_comparison
filter_negated: NOT filter_not
filter_comparison: filter_property [COMPARISON filter_values]
?filter_property: PROPERTY -> property_word
                | filter_variable
?filter_variable: VARIABLE -> variable
                | filter_variable MEMBER -> member
filter_values: filter_value (_COMMA filter_value)*
?filter_value: BARE -> word
             | NUMBER -> number
             | DOUBLE -> double
             | SINGLE -> single
             | filter_variable
             | NO_SCOPE

%ignore _IGNORED
%ignore _COMMENT
%ignore _NEXT_LINE_PIPE
"""

_CLOSE: Final = rf"(?<=[\w)\]}}{DOUBLE}{SINGLE}])"  # nothing between this and what is before it
_BARE: Final = rf"(?:{_WORD_CHARACTER}|`\S)"
_GAP: Final = r"(?:\s|#[^\n]*\n|<#.*?#>|`\r?\n)*+"
_NO_QUOTE: Final = rf"(?![{DOUBLE}{SINGLE}])"
_STATEMENTS: Final = _either(tuple(k for k in KEYWORDS if k != "foreach"))

# name, priority, pattern; all without case
_TERMINALS: Final = (
    ("NAME", 1, rf"(?!{DASH}|@){_BARE}++(?![{DOUBLE}{SINGLE}$])"),
    ("WORD", 1, rf"(?!@(?=[\w({{])|#){_BARE}(?:{_BARE}|\${_NAME})*+{_NO_QUOTE}"),
    (
        "WORD_OF_VARIABLE",
        4,
        rf"\${_NAME}(?:\.\w+)*+(?=[^\s;|,(){{}}\[\].<>&`$=])(?:{_BARE}|\${_NAME})++{_NO_QUOTE}",
    ),
    ("BARE", 1, rf"(?!{DASH}[a-z]|@){_WORD_CHARACTER}++(?![{DOUBLE}{SINGLE}$])"),
    ("PROPERTY", 1, r"[a-z_]\w*"),
    ("KEY", 2, r"[a-z_]\w*"),
    ("NUMBER", 3, rf"{DASH}?(?:0x[0-9a-f]{{1,15}}|(?:\d{{1,15}}(?:\.\d{{1,15}})?|\.\d{{1,15}})(?:[kmgtp]b)?){_END}"),
    ("VARIABLE", 2, rf"\${_NAME}(?!:\w)"),
    ("DOUBLE", 2, QUOTED),
    ("SINGLE", 2, rf"[{SINGLE}](?:[^{SINGLE}]|[{SINGLE}]{{2}})*+[{SINGLE}]"),
    ("PARAMETER_COLON", 3, rf"{DASH}[a-z_?][\w?]*:(?!:)"),
    ("PARAMETER", 2, rf"{DASH}[a-z_?][\w?-]*"),
    ("MEMBER", 4, _CLOSE + r"\.[a-z_]\w*(?![(\w])"),
    ("INDEX", 4, _CLOSE + r"\[(?!\])"),
    ("LOGICAL", 3, rf"{DASH}(?:and|or|xor){_END}{_GAP}"),
    ("COMPARISON", 3, rf"{DASH}[ic]?(?:{_either(COMPARISONS)}){_END}{_GAP}"),
    ("NOT", 3, rf"{DASH}not{_END}{_GAP}|!(?!=){_GAP}"),
    ("PLUS", 2, rf"\+(?![+=]){_GAP}"),
    ("MINUS", 2, rf"{DASH}(?![a-z=]|{DASH}){_GAP}"),
    ("TIMES", 2, rf"\*(?!=){_GAP}"),
    ("DIVIDE", 2, rf"/(?!=){_GAP}"),
    ("MODULO", 2, rf"%(?!=){_GAP}"),
    ("NO_KEYWORD", 8, rf"(?:{_STATEMENTS})(?=[\s({{;]|$)|foreach(?=\s*\()"),
    ("NO_CALL", 8, r"&(?!&)|\.(?=\s)"),
    ("NO_LABEL", 8, r":[a-z]\w*(?=\s)"),
    ("NO_TYPE", 6, r"\[[a-z][\w.,\[\] ]*\]"),
    ("NO_SPLAT", 6, r"@[a-z_]\w*"),
    ("NO_HERE_STRING", 6, rf"@[{DOUBLE}{SINGLE}]"),
    ("NO_SCOPE", 6, r"\$\w+:\w+|\$[?$^]"),
    ("NO_METHOD", 6, _CLOSE + r"\.\w+\("),
    ("NO_STATIC", 6, _CLOSE + r"::\w*"),
    ("NO_ASSIGNMENT", 6, r"[-+*/%]=|\+\+|--(?![a-z])"),
    ("NO_OPERATOR", 1, rf"{DASH}[a-z]\w*|\.\."),
    ("NO_REDIRECTION", 8, r"(?:[1-6*])?>{1,2}(?:&[1-6])?|<"),
    ("NO_CHAIN", 8, r"&&|\|\||&"),
    ("_NEWLINE", 9, rf"\r?\n{_GAP}"),
    ("_SEMICOLON", 2, ";"),
    ("_PIPE", 2, rf"\|(?!\|){_GAP}"),
    ("_COMMA", 2, rf",{_GAP}"),
    ("_EQUAL", 2, rf"={_GAP}"),
    ("_OPEN", 2, rf"\({_GAP}"),
    ("_CLOSE", 12, rf"{_GAP}\)"),
    ("_OPEN_ARRAY", 7, rf"@\({_GAP}"),
    ("_OPEN_SUB", 7, rf"\$\({_GAP}"),
    ("_OPEN_HASH", 7, rf"@\{{{_GAP}"),
    ("_OPEN_BLOCK", 2, rf"\{{{_GAP}"),
    ("_CLOSE_BLOCK", 12, rf"{_GAP}\}}"),
    ("_CLOSE_INDEX", 12, rf"{_GAP}\]"),
    ("_IGNORED", 9, r"[ \t\r\f\v\xa0\ufeff]+|`\r?\n"),
    ("_COMMENT", 9, r"#[^\n]*|<#.*?#>"),
    ("_NEXT_LINE_PIPE", 10, rf"[ \t\r]*\n{_GAP}(?=\|(?!\|))"),
)

GRAMMAR: Final = (
    _VALUE.replace("PLACE", "argument")
    + _VALUE.replace("PLACE", "primary")
    + _RULES
    + "".join(_terminal(*row) for row in _TERMINALS)
)
