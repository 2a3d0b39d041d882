"""`namedtuple`, as collections has it, at a smaller price.

To import collections takes 2 ms of a start's fifty, and thirty classes made by it 2 ms more, for it compiles a function
for each. This one makes the same of closures. Type checkers are shown the original.
"""

__all__ = ["namedtuple"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import namedtuple
else:

    def namedtuple(typename, field_names, defaults=()):
        """A subclass of tuple with these fields, separated by spaces; the last of them have `defaults`.

        Its objects take, give and compare what collections.namedtuple's do. TypeError for a field that is not given,
        given twice or unknown.
        """
        fields = tuple(field_names.split())
        usual = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))

        def new(cls, *values, **named):
            if named or len(values) != len(fields):
                given = {**dict(zip(fields, values, strict=False)), **named}
                if len(given) != len(values) + len(named) or not given.keys() <= set(fields):
                    raise TypeError(f"{typename} takes {field_names}: each once; not {values} and {named}")
                missing = [name for name in fields if name not in given and name not in usual]
                if missing:
                    raise TypeError(f"{typename} needs {', '.join(missing)}, too")
                values = [given[name] if name in given else usual[name] for name in fields]
            return tuple.__new__(cls, values)

        def replace(self, **named):
            return type(self)(**{**as_dict(self), **named})

        def as_dict(self):
            return dict(zip(fields, self, strict=True))

        def show(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in as_dict(self).items())})"

        members = {name: property(lambda self, place=place: self[place]) for place, name in enumerate(fields)}
        members |= {
            "__slots__": (), "__match_args__": fields, "_fields": fields, "_field_defaults": usual, "__new__": new,
            "__repr__": show, "__getnewargs__": lambda self: (*self,), "_replace": replace, "_asdict": as_dict,
            "_make": classmethod(lambda cls, values: cls(*values)),
        }  # fmt: skip
        return type(typename, (tuple,), members)
