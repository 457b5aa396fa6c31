"""Pages of the site that stand at the top of the tree: the README is the first one."""

from pathlib import Path

from mkdocs.structure.files import File

TOP = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files, config):
    """Add them, with links as they are seen from docs/."""
    for source, page in PAGES.items():
        text = (TOP / source).read_text().replace("](docs/", "](")
        for name, other in PAGES.items():
            text = text.replace(f"]({name})", f"]({other})")
        files.append(File.generated(config, page, content=text))
    return files
