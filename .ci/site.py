"""Pages of the site that do not stand in docs/: those at the top of the tree, and one for each guider and each task."""

from pathlib import Path

import reference
from mkdocs.structure.files import File

TOP = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LISTS = {"Each guider": "reference/guiders", "Each task": "reference/tasks"}


def on_config(config):
    """List the pages of guiders and tasks in the navigation."""
    section = next(item["Reference"] for item in config.nav if "Reference" in item)
    for number, (title, folder) in enumerate(LISTS.items()):
        pages = [page for page in reference.pages() if page.startswith(folder)]
        section.insert(number, {title: sorted(pages, key=lambda page: (not page.endswith("index.md"), page))})
    return config


def on_files(files, config):
    """Add all of them, those at the top with links as they are seen from docs/."""
    for source, page in PAGES.items():
        text = (TOP / source).read_text().replace("](docs/", "](")
        for name, other in PAGES.items():
            text = text.replace(f"]({name})", f"]({other})")
        files.append(File.generated(config, page, content=text))
    for page, text in reference.pages().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown, page, **_):
    """Where the docs have all guiders or all tasks in one page, say that there is a page for each."""
    source = page.file.src_uri
    if source in ("guiders.md", "tasks.md"):
        head, rest = markdown.split("\n", 1)
        kind = source.removesuffix(".md")
        return f"{head}\n\nEach has [a page of its own](reference/{kind}/index.md) with all its settings.\n{rest}"
    return markdown
