"""``labctl recipe``: write, check, explain and plan recipes before anything runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from labctl.cli.planning import plan
from labctl.cli.recipes import RecipeArgument, fail, load_recipe, print_problems, say
from labctl.errors import Problem, RecipeError
from labctl.protocols.explain import explain_text
from labctl.protocols.files import template_text
from labctl.protocols.layout import laid_out
from labctl.protocols.recipe import (
    bundle,
    find_recipe,
    read_recipe,
    read_text,
    shipped_recipes,
)
from labctl.protocols.schema import schema_text

app = typer.Typer(help="Write, check, explain and plan recipes.", no_args_is_help=True)
app.command()(plan)

_Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE...", help="Recipe files, or names of shipped recipes."),
]


@app.command()
def check(files: _Files) -> None:
    """Look for every mistake that can be found without a cell."""
    wrong = 0
    for file in files:
        try:
            recipe = load_recipe(file)
        except RecipeError as error:
            wrong += 1
            print_problems(error)
        else:
            say(f"ok  {file}: {recipe.name}", "green")
    if wrong:
        raise typer.Exit(1)


@app.command()
def explain(file: RecipeArgument) -> None:
    """Say in words what a recipe does."""
    try:
        recipe = load_recipe(file)
    except RecipeError as error:
        fail(error)
    typer.echo(explain_text(recipe), nl=False)


@app.command()
def schema() -> None:
    """Print the JSON schema that editors complete recipes with."""
    typer.echo(schema_text(), nl=False)


@app.command(name="list")
def list_recipes() -> None:
    """List the recipes that come with labctl."""
    shipped = shipped_recipes()
    width = max(len(name) for name in shipped)
    for name in shipped:
        recipe = load_recipe(name)
        typer.echo(f"{name:<{width}}  {recipe.about or recipe.name}")


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What to call it; '.yaml' is put behind it.")],
    template: Annotated[
        str, typer.Option("--from", help="A recipe file or shipped recipe to begin with.")
    ] = "",
) -> None:
    """Write a new recipe, to be changed; and the schema beside it, for the editor."""
    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    try:
        text = bundle(load_recipe(template)) if template else template_text()
        text = _renamed(text, path.stem)
        read_recipe(text, file=str(path))
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except RecipeError as error:
        fail(error)
    except FileExistsError:
        fail(RecipeError([Problem("is there already", str(path), suggestion="take another name")]))
    except OSError as error:
        fail(RecipeError([Problem(f"cannot be written: {error.strerror}", str(path))]))
    say(f"wrote {path}", "green")
    beside = path.parent / "recipe.schema.json"
    if not beside.exists():
        beside.write_text(schema_text(), encoding="utf-8")
        say(f"wrote {beside}, with which editors complete and explain recipes")


@app.command()
def fmt(
    files: _Files,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if something would be changed.")
    ] = False,
) -> None:
    """Lay recipes out alike: two spaces a level, comments kept, what they mean unchanged."""
    wrong = False
    for name in files:
        path = find_recipe(name)
        try:
            text = read_text(path, called=name)
            new_text = laid_out(text, file=name)
            if text == new_text:
                continue
            if check_only:
                say(f"would change  {name}", "yellow")
                wrong = True
                continue
            with path.open("w", encoding="utf-8", newline="\n") as file:
                file.write(new_text)
            say(f"laid out  {name}", "green")
        except RecipeError as error:
            wrong = True
            print_problems(error)
        except OSError as error:
            wrong = True
            print_problems(
                RecipeError([Problem(f"cannot be written: {error.strerror}", str(path))])
            )
    if wrong:
        raise typer.Exit(1)


def _renamed(text: str, name: str) -> str:
    """``text`` with the recipe's name and the place of its schema changed."""
    title = name.replace("-", " ").replace("_", " ")
    quoted = "'" + title.replace("'", "''") + "'"
    title = title if re.fullmatch(r"[\w][\w .+-]*", title) else quoted
    text = re.sub(r"^recipe:.*$", lambda _: f"recipe: {title}", text, count=1, flags=re.MULTILINE)
    schema = "# yaml-language-server: $schema=recipe.schema.json"
    return re.sub(
        r"^# yaml-language-server:.*$", lambda _: schema, text, count=1, flags=re.MULTILINE
    )
