"""simsiam_tf.pretrain, but to begin work (`loop.Loop`) ends with a line and status 99."""

import sys

from simsiam_tf import pretrain
from simsiam_tf.command_line import cli


def refuse(*args):
    print("the loop was built", file=sys.stderr)
    sys.exit(99)


if __name__ == "__main__":
    with cli.silence_stderr():
        from simsiam_tf.loop import loop

    loop.Loop.__init__ = refuse
    sys.exit(pretrain.main(sys.argv[1:]))
