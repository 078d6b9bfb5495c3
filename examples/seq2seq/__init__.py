"""An LSTM encoder and decoder with attention, as Google's NMT tutorial (github.com/tensorflow/nmt, 2017) had it.

What it shows of TF1: cells in wrappers in stacks, a user's own cell (`attention.AttentionWrapper`), ``dynamic_rnn`` and
``bidirectional_dynamic_rnn``, captured scopes, ``reuse=True`` for a second pass, default names, an initializer set on
the root scope, and a custom getter that keeps half-precision models' variables in float32. The names are those of NMT's
checkpoints, such as ``dynamic_seq2seq/decoder/attention/multi_rnn_cell/cell_0/basic_lstm_cell/kernel``.

Run it: ``python -m examples.seq2seq`` learns to write numbers backwards, and shows where the decoder looks.
"""

from examples.seq2seq.model import Config, evaluation, greedy, logits, loss, training

__all__ = ["Config", "evaluation", "greedy", "logits", "loss", "training"]
