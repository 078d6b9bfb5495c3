"""`tf.nn.rnn_cell`: cells for `jv.nn.dynamic_rnn`, with TF1's names, gate orders and states."""

from jaxvars.nn.rnn_cell.base import RNNCell
from jaxvars.nn.rnn_cell.cells import BasicRNNCell, GRUCell
from jaxvars.nn.rnn_cell.dropout import DropoutWrapper
from jaxvars.nn.rnn_cell.lstm import BasicLSTMCell, LSTMCell, LSTMStateTuple
from jaxvars.nn.rnn_cell.wrappers import DeviceWrapper, MultiRNNCell, ResidualWrapper

__all__ = [
    "BasicLSTMCell",
    "BasicRNNCell",
    "DeviceWrapper",
    "DropoutWrapper",
    "GRUCell",
    "LSTMCell",
    "LSTMStateTuple",
    "MultiRNNCell",
    "RNNCell",
    "ResidualWrapper",
]
