"""Hook of mkdocs: links from docs/ to files outside of it lead to the repository."""

import re


def on_page_markdown(markdown: str, config, **_) -> str:  # noqa: ANN001, ANN003
    """The page with `](../PATH)` as an address in the repository."""
    return re.sub(r"\]\(\.\./([^)]+)\)", rf"]({config['repo_url']}/blob/main/\1)", markdown)
