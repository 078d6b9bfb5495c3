"""Trains the digit reader of the tour with TensorFlow 1, as such programs were written in 2017.

This is the "old program" whose checkpoint the tour takes over. It needs TensorFlow (`pip install
"jaxvars[parity]"`) and scikit-learn, and nobody needs to run it: its output lies in `jaxvars/tour/data`.
To make that again:

    python tools/make_digits_checkpoint.py --train_dir=/home/mia/digits --export_dir=jaxvars/tour/data

`export_dir` receives the checkpoint as the Saver wrote it (the state file still names `train_dir`, as in any
folder that a colleague sends you) and, beside it, what TensorFlow itself answers for the test images.
"""

# ruff: noqa: UP031  (of its time)

import glob
import os
import shutil

import numpy as np
import tensorflow.compat.v1 as tf
from sklearn.datasets import load_digits

tf.disable_v2_behavior()

FLAGS = tf.app.flags.FLAGS
tf.app.flags.DEFINE_string("train_dir", "/tmp/digits", "Where checkpoints are written.")
tf.app.flags.DEFINE_string("export_dir", "", "Where the last checkpoint and its answers are copied.")
tf.app.flags.DEFINE_integer("max_steps", 1200, "Number of batches to run.")
tf.app.flags.DEFINE_integer("batch_size", 64, "Number of images per batch.")

NUM_CLASSES = 10
BN_DECAY = 0.95
BN_EPSILON = 1e-3


def read_digits():
    """Returns (train_images, train_labels), (test_images, test_labels): every fifth image is for the test."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[..., np.newaxis]
    labels = digits.target.astype(np.int32)
    is_test = np.arange(len(labels)) % 5 == 0
    return (images[~is_test], labels[~is_test]), (images[is_test], labels[is_test])


def _weights(shape, stddev):
    return tf.get_variable("weights", shape, initializer=tf.truncated_normal_initializer(stddev=stddev))


def _biases(size, value=0.0):
    return tf.get_variable("biases", [size], initializer=tf.constant_initializer(value))


def batch_norm(x, is_training):
    with tf.variable_scope("bn"):
        size = x.get_shape().as_list()[-1:]
        beta = tf.get_variable("beta", size, initializer=tf.zeros_initializer())
        gamma = tf.get_variable("gamma", size, initializer=tf.ones_initializer())
        moving_mean = tf.get_variable("moving_mean", size, initializer=tf.zeros_initializer(), trainable=False)
        moving_variance = tf.get_variable("moving_variance", size, initializer=tf.ones_initializer(), trainable=False)
        if not is_training:
            return tf.nn.batch_normalization(x, moving_mean, moving_variance, beta, gamma, BN_EPSILON)
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        for moving, value in [(moving_mean, mean), (moving_variance, variance)]:
            update = tf.assign_sub(moving, (1.0 - BN_DECAY) * (moving - value))
            tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, update)
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, BN_EPSILON)


def inference(images, is_training, reuse=None):
    """Builds the network up to the logits."""
    with tf.variable_scope("digits_net", reuse=reuse):
        with tf.variable_scope("conv1"):
            conv = tf.nn.conv2d(images, _weights([5, 5, 1, 16], 0.2), [1, 1, 1, 1], padding="SAME")
            conv1 = tf.nn.relu(tf.nn.bias_add(conv, _biases(16)))
        pool1 = tf.nn.max_pool(conv1, [1, 2, 2, 1], [1, 2, 2, 1], padding="SAME")
        with tf.variable_scope("conv2"):
            conv = tf.nn.conv2d(pool1, _weights([3, 3, 16, 32], 0.1), [1, 1, 1, 1], padding="SAME")
            conv2 = tf.nn.relu(batch_norm(conv, is_training))
        pool2 = tf.nn.max_pool(conv2, [1, 2, 2, 1], [1, 2, 2, 1], padding="SAME")
        with tf.variable_scope("fc"):
            flat = tf.reshape(pool2, [-1, 2 * 2 * 32])
            fc = tf.nn.relu(tf.nn.xw_plus_b(flat, _weights([128, 48], 0.1), _biases(48, 0.1)))
        with tf.variable_scope("logits"):
            return tf.nn.xw_plus_b(fc, _weights([48, NUM_CLASSES], 0.1), _biases(NUM_CLASSES))


def training(loss, global_step):
    """Builds the training op: momentum with a falling learning rate, and weight decay in the loss."""
    learning_rate = tf.train.exponential_decay(0.02, global_step, 400, 0.5, staircase=True)
    optimizer = tf.train.MomentumOptimizer(learning_rate, 0.9)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        return optimizer.minimize(loss, global_step=global_step)


def export(path, logits, labels):
    """Copies the checkpoint `path` into export_dir, with the answers that TensorFlow gave."""
    if not os.path.isdir(FLAGS.export_dir):
        os.makedirs(FLAGS.export_dir)
    for name in [*glob.glob(path + ".index"), *glob.glob(path + ".data-*")]:
        shutil.copy(name, FLAGS.export_dir)
    shutil.copy(os.path.join(FLAGS.train_dir, "checkpoint"), FLAGS.export_dir)
    accuracy = np.mean(logits.argmax(axis=1) == labels)
    np.savez_compressed(
        os.path.join(FLAGS.export_dir, "tensorflow_answers.npz"),
        logits=logits,
        labels=labels,
        accuracy=accuracy,
    )


def main(_):
    (train_images, train_labels), (test_images, test_labels) = read_digits()
    order = np.random.RandomState(1)
    tf.set_random_seed(1)

    images = tf.placeholder(tf.float32, [None, 8, 8, 1], name="images")
    labels = tf.placeholder(tf.int32, [None], name="labels")
    global_step = tf.train.get_or_create_global_step()
    logits = inference(images, is_training=True)
    test_logits = inference(images, is_training=False, reuse=True)
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
    decay = tf.add_n([tf.nn.l2_loss(v) for v in tf.trainable_variables() if v.op.name.endswith("weights")])
    loss = tf.reduce_mean(cross_entropy) + 2e-4 * decay
    train_op = training(loss, global_step)

    saver = tf.train.Saver(max_to_keep=1)
    # One thread, so that the same file comes out every time.
    config = tf.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    with tf.Session(config=config) as sess:
        sess.run(tf.global_variables_initializer())
        for step in range(1, FLAGS.max_steps + 1):
            batch = order.randint(len(train_labels), size=FLAGS.batch_size)
            feed = {images: train_images[batch], labels: train_labels[batch]}
            _, loss_value = sess.run([train_op, loss], feed_dict=feed)
            if step % 100 == 0:
                print("step %d, loss = %.4f" % (step, loss_value))
        path = saver.save(sess, os.path.join(FLAGS.train_dir, "model.ckpt"), global_step=global_step)
        answers = sess.run(test_logits, feed_dict={images: test_images})
    print("%s: test accuracy %.4f" % (path, np.mean(answers.argmax(axis=1) == test_labels)))
    if FLAGS.export_dir:
        export(path, answers, test_labels)


if __name__ == "__main__":
    tf.app.run()
