"""Which cells a cell needs: a widget is tried without running the whole chapter before it."""
import builtins
import symtable

from mmcourse.cli.notebooks import source


def names(code: str) -> tuple[set[str], set[str]]:
    """(names that a cell binds, global names that it uses, also inside of its functions)."""
    from IPython.core.inputtransformer2 import TransformerManager

    top = symtable.symtable(TransformerManager().transform_cell(code), "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used, todo = set(), [top]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (table is top or s.is_global())}
    return bound, used - set(dir(builtins))


def needed(cells: list[dict], target: int) -> list[int]:
    """The indices of `target` and of all cells before it that bind what it needs."""
    found, wanted = [target], names(source(cells[target]))[1]
    for i in range(target - 1, -1, -1):
        if cells[i]["cell_type"] == "code":
            bound, used = names(source(cells[i]))
            if bound & wanted:
                found.append(i)
                wanted = (wanted - bound) | used
    return sorted(found)
