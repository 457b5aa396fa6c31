"""A process that dies at a chosen moment, played in this one."""


class Killed(BaseException):
    """Nothing that is meant to catch errors catches it."""


def dying_after(calls):
    """What wraps functions so that, counted together, they work so many times and then raise `Killed`."""
    left = calls

    def count(real):
        def counted(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*args, **kwargs)

        return counted

    return count
