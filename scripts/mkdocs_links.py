"""Hook of mkdocs: links to files outside of docs/ lead to the repository; docstrings are shown."""

import re


def on_page_markdown(markdown: str, config, **_) -> str:  # noqa: ANN001, ANN003
    """The page with `](../PATH)` as an address in the repository, and the names of docstrings uncommented.

    GitHub, which shows a page as it is, hides the comments.
    """
    markdown = re.sub(r"<!-- the site shows the docstrings\n(.*?)-->\n", r"\1", markdown, flags=re.S)
    return re.sub(r"\]\(\.\./([^)]+)\)", rf"]({config['repo_url']}/blob/main/\1)", markdown)
