"""How long products take: processes that take turns, checked, timed, and their memory measured."""
