"""Text without secrets."""

import pytest

from mint.errors import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@host:5432/db", "postgresql://***@host:5432/db"),
        ("https://me:p/a@ss@host/x", "https://***@host/x"),
        ("postgresql://me:p w#d@host/db", "postgresql://***@host/db"),
        ("https://host/x?sv=1&sig=abc", "https://host/x?sv=1&sig=***"),
        ("mssql:///?odbc_connect=PWD%3Dpass", "mssql:///?odbc_connect=***"),
        ("s --tracking-uri http://u:p@h --seeds 0", "s --tracking-uri http://***@h --seeds 0"),
        ("mysql://host/db?user=me&password=pass&a=b", "mysql://host/db?user=me&password=***&a=b"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
