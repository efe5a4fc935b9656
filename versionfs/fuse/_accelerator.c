/* Answers requests of the kernel without a coroutine each, and the next one without a poll.
 *
 * pyfuse3 calls libfuse; this module, loaded before it with its symbols global, stands in between.
 * It replaces some operations by ones that call a plain Python function and send its answer. What
 * the function declines (None) goes the usual way, through pyfuse3. After an answer the next request
 * is looked for at once, for some microseconds: waking a process that sleeps takes longer.
 *
 * All of it is optional: without the module, or when nothing is armed, pyfuse3 works as ever.
 * Everything runs in the thread of pyfuse3's loop, which holds the GIL.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FUSE_USE_VERSION 35
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

/* Of what handlers return: as in accelerator.py. */
#define VERSION 4

/* A turn ends after this time, so that other tasks of the process run. */
#define TURN_NS 1000000
/* Covers the time from an answer to the next request of a client that does little in between. */
#define SPIN_NS 30000
/* After so many spins in a row that found nothing, only one in RARELY is tried. */
#define PATIENCE 16
#define RARELY 16
/* From so many bytes on, other threads may run while the kernel copies an answer. */
#define LARGE (128 * 1024)
/* Of one answer to read: as in versionfs/tree/content.py. */
#define MOST_PIECES 32

enum kind {
    LOOKUP, GETATTR, OPEN, READ, RELEASE, OPENDIR, READDIR, RELEASEDIR, GETXATTR, CREATE, WRITE,
    FORGET, KINDS
};

static const char *const kind_names[KINDS] = {
    "lookup", "getattr", "open", "read", "release", "opendir", "readdir", "releasedir", "getxattr",
    "create", "write", "forget",
};

static PyObject *handlers[KINDS];
/* Called when readdir was answered and no request waits: it reads what a walk comes to next. */
static PyObject *look_ahead;
/* Whether readdir gave entries since then. */
static int listed;
/* Called while no request waits after files were opened: what to push to the kernel's cache next. */
static PyObject *push_ahead;
/* Whether it may have something. */
static int opened;
static unsigned long long answered[KINDS];
static unsigned long long received, turns;
static int armed, without_open, without_opendir, spins;
/* Whether pyfuse3 got the request that is being processed: its coroutine must run next. */
static int handed_on;

static struct fuse_session *session;
static struct fuse_lowlevel_ops theirs;
static struct fuse_buf own_buffer;
static unsigned misses;

static struct fuse_session *(*real_new)(struct fuse_args *, const struct fuse_lowlevel_ops *,
                                        size_t, void *);
static int (*real_receive)(struct fuse_session *, struct fuse_buf *);
static void (*real_process)(struct fuse_session *, const struct fuse_buf *);

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* -- calling Python --------------------------------------------------------------------------- */

/* Calls a handler, whose arguments it takes over. Returns a new reference; NULL: pass it on. */
static PyObject *ask(enum kind kind, PyObject **arguments, size_t count)
{
    PyObject *answer = NULL;
    size_t made = 0;
    while (made < count && arguments[made] != NULL)
        made++;
    if (made == count)
        answer = PyObject_Vectorcall(handlers[kind], arguments, count, NULL);
    for (size_t i = 0; i < count; i++)
        Py_XDECREF(arguments[i]);
    if (answer == NULL) {
        PyErr_WriteUnraisable(handlers[kind]);
    } else if (answer == Py_None) {
        Py_CLEAR(answer);
    }
    return answer;
}

static int is_armed(enum kind kind)
{
    return armed && handlers[kind] != NULL;
}

static void pass_on(void)
{
    handed_on = 1;
}

/* Sends an answer that is a number: minus an errno, or 0. Any other is an error of ours. */
static void reply_number(fuse_req_t req, PyObject *answer)
{
    long number = PyLong_Check(answer) ? PyLong_AsLong(answer) : -EIO;
    if (number > 0 || PyErr_Occurred()) {
        PyErr_Clear();
        number = -EIO;
    }
    fuse_reply_err(req, (int)-number);
}

static void split_time(int64_t ns, struct timespec *time)
{
    int64_t seconds = ns / 1000000000, rest = ns % 1000000000;
    if (rest < 0) {
        rest += 1000000000;
        seconds--;
    }
    time->tv_sec = seconds;
    time->tv_nsec = rest;
}

static int64_t integer(PyObject *tuple, Py_ssize_t index)
{
    PyObject *item = PyTuple_GET_ITEM(tuple, index);
    /* Numbers of inodes may have the highest bits set. */
    return (int64_t)PyLong_AsUnsignedLongLongMask(item);
}

/* Reads attributes: number, mode, size, mtime, uid, gid; or all eleven of ``workspace.Stat``. */
static int read_attributes(PyObject *tuple, struct stat *attr)
{
    if (!PyTuple_Check(tuple))
        return -1;
    memset(attr, 0, sizeof *attr);
    if (PyTuple_GET_SIZE(tuple) == 6) {
        attr->st_ino = (ino_t)integer(tuple, 0);
        attr->st_mode = (mode_t)integer(tuple, 1);
        attr->st_nlink = 1;
        attr->st_size = integer(tuple, 2);
        attr->st_blocks = (attr->st_size + 511) >> 9;
        split_time(integer(tuple, 3), &attr->st_mtim);
        attr->st_atim = attr->st_ctim = attr->st_mtim;
        attr->st_uid = (uid_t)integer(tuple, 4);
        attr->st_gid = (gid_t)integer(tuple, 5);
    } else if (PyTuple_GET_SIZE(tuple) == 11) {
        attr->st_ino = (ino_t)integer(tuple, 0);
        attr->st_mode = (mode_t)integer(tuple, 1);
        attr->st_nlink = (nlink_t)integer(tuple, 2);
        attr->st_uid = (uid_t)integer(tuple, 3);
        attr->st_gid = (gid_t)integer(tuple, 4);
        attr->st_rdev = (dev_t)integer(tuple, 5);
        attr->st_size = integer(tuple, 6);
        attr->st_blocks = integer(tuple, 7);
        split_time(integer(tuple, 8), &attr->st_atim);
        split_time(integer(tuple, 9), &attr->st_mtim);
        split_time(integer(tuple, 10), &attr->st_ctim);
    } else {
        return -1;
    }
    attr->st_blksize = 4096;
    return PyErr_Occurred() ? -1 : 0;
}

/* Reads (attributes or None, seconds) of an answer into what a lookup replies. */
static int read_entry(PyObject *answer, struct fuse_entry_param *entry)
{
    memset(entry, 0, sizeof *entry);
    if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) < 2)
        return -1;
    double seconds = PyFloat_AsDouble(PyTuple_GET_ITEM(answer, 1));
    entry->entry_timeout = entry->attr_timeout = seconds;
    PyObject *attributes = PyTuple_GET_ITEM(answer, 0);
    if (attributes != Py_None) {
        if (read_attributes(attributes, &entry->attr) < 0)
            return -1;
        entry->ino = entry->attr.st_ino;
    }
    return PyErr_Occurred() ? -1 : 0;
}

static void reply_failure(fuse_req_t req)
{
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(NULL);
    fuse_reply_err(req, EIO);
}

/* -- operations ------------------------------------------------------------------------------- */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    theirs.init(userdata, conn);
    if (armed) {
        /* Through a pipe, a request takes three system calls more. */
        conn->want &= ~(unsigned)FUSE_CAP_SPLICE_READ;
        conn->max_background = 64;
        conn->congestion_threshold = 48;
    }
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (is_armed(LOOKUP)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(parent), PyBytes_FromString(name)};
        PyObject *answer = ask(LOOKUP, arguments, 2);
        if (answer != NULL) {
            struct fuse_entry_param entry;
            answered[LOOKUP]++;
            if (PyLong_Check(answer))
                reply_number(req, answer);
            else if (read_entry(answer, &entry) < 0)
                reply_failure(req);
            else
                fuse_reply_entry(req, &entry);
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.lookup(req, parent, name);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (is_armed(GETATTR)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(ino)};
        PyObject *answer = ask(GETATTR, arguments, 1);
        if (answer != NULL) {
            struct fuse_entry_param entry;
            answered[GETATTR]++;
            if (PyLong_Check(answer))
                reply_number(req, answer);
            else if (read_entry(answer, &entry) < 0)
                reply_failure(req);
            else
                fuse_reply_attr(req, &entry.attr, entry.attr_timeout);
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.getattr(req, ino, fi);
}

/* Gives the kernel the bytes of files that nobody has open, to be in its cache when they are opened
 * (the one that is being opened: when the answer arrives). What it does not take is read as usual.
 * Returns 0, or -1 where that is no list of numbers and bytes. */
static int push(PyObject *list)
{
    if (!PyList_Check(list))
        return -1;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *pair = PyList_GET_ITEM(list, i);
        Py_buffer view;
        if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2)
            return -1;
        fuse_ino_t ino = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(pair, 0));
        if (PyErr_Occurred() ||
            PyObject_GetBuffer(PyTuple_GET_ITEM(pair, 1), &view, PyBUF_SIMPLE) < 0) {
            PyErr_Clear();
            return -1;
        }
        struct fuse_bufvec vector = FUSE_BUFVEC_INIT((size_t)view.len);
        vector.buf[0].mem = view.buf;
        fuse_lowlevel_notify_store(session, ino, 0, &vector, 0);
        PyBuffer_Release(&view);
    }
    return 0;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (armed && without_open) {
        /* The kernel does not ask again, nor does it release. */
        answered[OPEN]++;
        fuse_reply_err(req, ENOSYS);
        return;
    }
    if (is_armed(OPEN)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(ino), PyLong_FromLong(fi->flags)};
        PyObject *answer = ask(OPEN, arguments, 2);
        if (answer != NULL) {
            answered[OPEN]++;
            if (PyLong_Check(answer)) {
                reply_number(req, answer);
            } else if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) != 2) {
                reply_failure(req);
            } else {
                fi->fh = (uint64_t)integer(answer, 0);
                fi->keep_cache = 1;
                if (push(PyTuple_GET_ITEM(answer, 1)) == 0)
                    opened = 1;
                fuse_reply_open(req, fi);
            }
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.open(req, ino, fi);
}

/* Sends pieces of bytes as one answer, without joining them. */
static void reply_pieces(fuse_req_t req, PyObject *pieces)
{
    Py_buffer views[MOST_PIECES];
    struct iovec vector[MOST_PIECES];
    Py_ssize_t count = PyList_GET_SIZE(pieces), held = 0;
    size_t size = 0;
    if (count > MOST_PIECES) {
        reply_failure(req);
        return;
    }
    while (held < count &&
           PyObject_GetBuffer(PyList_GET_ITEM(pieces, held), &views[held], PyBUF_SIMPLE) == 0) {
        vector[held].iov_base = views[held].buf;
        vector[held].iov_len = (size_t)views[held].len;
        size += (size_t)views[held].len;
        held++;
    }
    if (held < count) {
        reply_failure(req);
    } else if (size >= LARGE) {
        Py_BEGIN_ALLOW_THREADS
        fuse_reply_iov(req, vector, (int)count);
        Py_END_ALLOW_THREADS
    } else {
        fuse_reply_iov(req, vector, (int)count);
    }
    while (held > 0)
        PyBuffer_Release(&views[--held]);
}

/* Sends bytes; large ones while other threads run. */
static void reply_bytes(fuse_req_t req, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        reply_failure(req);
        return;
    }
    if (view.len >= LARGE) {
        Py_BEGIN_ALLOW_THREADS
        fuse_reply_buf(req, view.buf, (size_t)view.len);
        Py_END_ALLOW_THREADS
    } else {
        fuse_reply_buf(req, view.buf, (size_t)view.len);
    }
    PyBuffer_Release(&view);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    struct fuse_file_info info = *fi;
    if (armed && without_open)
        info.fh = ino; /* handles are inode numbers, and nobody was told this one */
    if (is_armed(READ)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(info.fh), PyLong_FromLongLong(off),
                                 PyLong_FromSize_t(size)};
        PyObject *answer = ask(READ, arguments, 3);
        if (answer != NULL) {
            answered[READ]++;
            if (PyLong_Check(answer))
                reply_number(req, answer);
            else if (PyList_Check(answer))
                reply_pieces(req, answer);
            else
                reply_failure(req);
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.read(req, ino, size, off, &info);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (is_armed(RELEASE)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(fi->fh)};
        PyObject *answer = ask(RELEASE, arguments, 1);
        if (answer != NULL) {
            answered[RELEASE]++;
            reply_number(req, answer);
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.release(req, ino, fi);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (armed && without_opendir) {
        /* The kernel does not ask again, nor does it release; it keeps what directories list. */
        answered[OPENDIR]++;
        fuse_reply_err(req, ENOSYS);
        return;
    }
    if (is_armed(OPENDIR)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(ino)};
        PyObject *answer = ask(OPENDIR, arguments, 1);
        if (answer != NULL) {
            answered[OPENDIR]++;
            if (PyLong_Check(answer)) {
                reply_number(req, answer);
            } else if (!PyTuple_Check(answer) || PyTuple_GET_SIZE(answer) != 2) {
                reply_failure(req);
            } else {
                fi->fh = (uint64_t)integer(answer, 0);
                fi->cache_readdir = fi->keep_cache = integer(answer, 1) != 0;
                fuse_reply_open(req, fi);
            }
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.opendir(req, ino, fi);
}

/* Fills a reply from an iterator of (name, attributes…, offset of the next) that counts a lookup of
 * each entry when asked for the one behind it. Returns the bytes, or minus an errno. */
static ssize_t fill(fuse_req_t req, PyObject *items, double seconds, char *buffer, size_t size)
{
    size_t used = 0;
    struct fuse_entry_param entry;
    PyObject *item;

    memset(&entry, 0, sizeof entry);
    entry.entry_timeout = entry.attr_timeout = seconds;
    while ((item = PyIter_Next(items)) != NULL) {
        Py_ssize_t count = PyTuple_Check(item) ? PyTuple_GET_SIZE(item) : 0;
        const char *name = NULL;
        int bad = 1;
        off_t next = 0;
        if (count == 8 && (name = PyBytes_AsString(PyTuple_GET_ITEM(item, 0))) != NULL) {
            struct stat *attr = &entry.attr;
            attr->st_ino = entry.ino = (ino_t)integer(item, 1);
            attr->st_mode = (mode_t)integer(item, 2);
            attr->st_nlink = 1;
            attr->st_size = integer(item, 3);
            attr->st_blocks = (attr->st_size + 511) >> 9;
            split_time(integer(item, 4), &attr->st_mtim);
            attr->st_atim = attr->st_ctim = attr->st_mtim;
            attr->st_uid = (uid_t)integer(item, 5);
            attr->st_gid = (gid_t)integer(item, 6);
            attr->st_blksize = 4096;
            next = integer(item, 7);
            bad = PyErr_Occurred() != NULL;
        } else if (count == 3 && (name = PyBytes_AsString(PyTuple_GET_ITEM(item, 0))) != NULL) {
            bad = read_attributes(PyTuple_GET_ITEM(item, 1), &entry.attr) < 0;
            entry.ino = entry.attr.st_ino;
            next = integer(item, 2);
        }
        if (bad) {
            Py_DECREF(item);
            return used ? (ssize_t)used : -EIO;
        }
        size_t length =
            fuse_add_direntry_plus(req, buffer + used, size - used, name, &entry, next);
        Py_DECREF(item);
        if (length > size - used)
            return (ssize_t)used;
        used += length;
    }
    return PyErr_Occurred() && !used ? -EIO : (ssize_t)used;
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                           struct fuse_file_info *fi)
{
    struct fuse_file_info info = *fi;
    if (armed && without_opendir)
        info.fh = ino; /* handles are inode numbers, and nobody was told this one */
    if (is_armed(READDIR)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(info.fh), PyLong_FromLongLong(off),
                                 PyLong_FromSize_t(size)};
        PyObject *answer = ask(READDIR, arguments, 3);
        if (answer != NULL && PyBytes_Check(answer)) {
            answered[READDIR]++;
            listed = PyBytes_GET_SIZE(answer) > 0;
            reply_bytes(req, answer);
            Py_DECREF(answer);
            return;
        }
        if (answer != NULL && PyLong_Check(answer)) {
            answered[READDIR]++;
            reply_number(req, answer);
            Py_DECREF(answer);
            return;
        }
        if (answer != NULL && PyTuple_Check(answer) && PyTuple_GET_SIZE(answer) == 2) {
            PyObject *items = PyTuple_GET_ITEM(answer, 0);
            double seconds = PyFloat_AsDouble(PyTuple_GET_ITEM(answer, 1));
            char *buffer = PyMem_Malloc(size);
            ssize_t used = buffer == NULL ? -ENOMEM : fill(req, items, seconds, buffer, size);
            /* Entries that the kernel gets cannot be taken back: it asks again for those behind.
             * With none of them given, the slow way finds out what is wrong, or waits for it. */
            PyErr_Clear();
            PyObject *closed = PyObject_CallMethod(items, "close", NULL);
            if (closed == NULL)
                PyErr_WriteUnraisable(items);
            Py_XDECREF(closed);
            Py_DECREF(answer);
            if (used >= 0) {
                answered[READDIR]++;
                listed = used > 0;
                fuse_reply_buf(req, buffer, (size_t)used);
                PyMem_Free(buffer);
                return;
            }
            PyMem_Free(buffer);
        } else {
            Py_XDECREF(answer);
        }
    }
    pass_on();
    theirs.readdirplus(req, ino, size, off, &info);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    if (is_armed(RELEASEDIR)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(fi->fh)};
        PyObject *answer = ask(RELEASEDIR, arguments, 1);
        if (answer != NULL) {
            answered[RELEASEDIR]++;
            reply_number(req, answer);
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.releasedir(req, ino, fi);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    if (is_armed(GETXATTR)) {
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(ino), PyBytes_FromString(name)};
        PyObject *answer = ask(GETXATTR, arguments, 2);
        if (answer != NULL) {
            answered[GETXATTR]++;
            if (!PyBytes_Check(answer))
                reply_number(req, answer);
            else if (size == 0)
                fuse_reply_xattr(req, (size_t)PyBytes_GET_SIZE(answer));
            else if ((size_t)PyBytes_GET_SIZE(answer) > size)
                fuse_reply_err(req, ERANGE);
            else
                fuse_reply_buf(req, PyBytes_AS_STRING(answer), (size_t)PyBytes_GET_SIZE(answer));
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.getxattr(req, ino, name, size);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
    if (is_armed(CREATE)) {
        const struct fuse_ctx *ctx = fuse_req_ctx(req);
        PyObject *arguments[] = {
            PyLong_FromUnsignedLongLong(parent), PyBytes_FromString(name), PyLong_FromLong(mode),
            PyLong_FromLong(ctx->uid), PyLong_FromLong(ctx->gid),
        };
        PyObject *answer = ask(CREATE, arguments, 5);
        if (answer != NULL) {
            struct fuse_entry_param entry;
            answered[CREATE]++;
            if (PyLong_Check(answer)) {
                reply_number(req, answer);
            } else if (read_entry(answer, &entry) < 0) {
                reply_failure(req);
            } else {
                fi->fh = entry.ino;
                fi->keep_cache = 1;
                fuse_reply_create(req, &entry, fi);
            }
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.create(req, parent, name, mode, fi);
}

static void op_write_buf(fuse_req_t req, fuse_ino_t ino, struct fuse_bufvec *vector, off_t off,
                         struct fuse_file_info *fi)
{
    if (is_armed(WRITE) && vector->count == 1 && !(vector->buf[0].flags & FUSE_BUF_IS_FD)) {
        PyObject *data = PyMemoryView_FromMemory((char *)vector->buf[0].mem,
                                                 (Py_ssize_t)vector->buf[0].size, PyBUF_READ);
        Py_XINCREF(data);
        PyObject *arguments[] = {PyLong_FromUnsignedLongLong(fi->fh), PyLong_FromLongLong(off),
                                 data};
        PyObject *answer = ask(WRITE, arguments, 3);
        if (data != NULL) {
            /* The bytes are gone with the next request: nobody may look at them any more. */
            PyObject *released = PyObject_CallMethod(data, "release", NULL);
            if (released == NULL)
                PyErr_WriteUnraisable(data);
            Py_XDECREF(released);
            Py_DECREF(data);
        }
        if (answer != NULL) {
            long count = PyLong_AsLong(answer);
            answered[WRITE]++;
            if (PyErr_Occurred())
                reply_failure(req);
            else if (count < 0)
                fuse_reply_err(req, (int)-count);
            else
                fuse_reply_write(req, (size_t)count);
            Py_DECREF(answer);
            return;
        }
    }
    pass_on();
    theirs.write_buf(req, ino, vector, off, fi);
}

static int forget(PyObject *pairs)
{
    PyObject *arguments[] = {pairs};
    PyObject *answer = ask(FORGET, arguments, 1);
    Py_XDECREF(answer);
    return answer != NULL;
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
    if (is_armed(FORGET) &&
        forget(Py_BuildValue("[(KK)]", (unsigned long long)ino, (unsigned long long)lookups))) {
        answered[FORGET]++;
        fuse_reply_none(req);
        return;
    }
    pass_on();
    theirs.forget(req, ino, lookups);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    if (is_armed(FORGET)) {
        PyObject *pairs = PyList_New((Py_ssize_t)count);
        for (size_t i = 0; pairs != NULL && i < count; i++) {
            PyObject *pair = Py_BuildValue("(KK)", (unsigned long long)forgets[i].ino,
                                           (unsigned long long)forgets[i].nlookup);
            if (pair == NULL)
                Py_CLEAR(pairs);
            else
                PyList_SET_ITEM(pairs, (Py_ssize_t)i, pair);
        }
        if (forget(pairs)) {
            answered[FORGET] += count;
            fuse_reply_none(req);
            return;
        }
    }
    pass_on();
    theirs.forget_multi(req, count, forgets);
}

/* -- what stands in for libfuse --------------------------------------------------------------- */

EXPORT struct fuse_session *accelerated_new(struct fuse_args *args,
                                            const struct fuse_lowlevel_ops *ops, size_t size,
                                            void *userdata) __asm__("fuse_session_new");
EXPORT int accelerated_receive(struct fuse_session *se,
                               struct fuse_buf *buf) __asm__("fuse_session_receive_buf");
EXPORT void accelerated_process(struct fuse_session *se,
                                const struct fuse_buf *buf) __asm__("fuse_session_process_buf");

struct fuse_session *accelerated_new(struct fuse_args *args, const struct fuse_lowlevel_ops *ops,
                                     size_t size, void *userdata)
{
    struct fuse_lowlevel_ops ours;
    if (!armed || size > sizeof theirs)
        return real_new(args, ops, size, userdata);
    memset(&theirs, 0, sizeof theirs);
    memcpy(&theirs, ops, size);
    ours = theirs;
    ours.init = op_init;
    ours.lookup = op_lookup;
    ours.getattr = op_getattr;
    ours.open = op_open;
    ours.read = op_read;
    ours.release = op_release;
    ours.opendir = op_opendir;
    ours.readdirplus = op_readdirplus;
    ours.releasedir = op_releasedir;
    ours.getxattr = op_getxattr;
    ours.create = op_create;
    ours.write_buf = op_write_buf;
    ours.forget = op_forget;
    ours.forget_multi = op_forget_multi;
    session = real_new(args, &ours, size, userdata);
    return session;
}

int accelerated_receive(struct fuse_session *se, struct fuse_buf *buf)
{
    int result = real_receive(se, buf);
    /* The request was taken back, or another turn has it: pyfuse3 knows only EINTR. */
    return result == -EAGAIN ? -EINTR : result;
}

/* Reads what will be asked for next, while the client is busy with what it got. */
static void read_ahead(void)
{
    listed = 0;
    PyObject *done = PyObject_CallNoArgs(look_ahead);
    if (done == NULL)
        PyErr_WriteUnraisable(look_ahead);
    Py_XDECREF(done);
}

/* Pushes what will be opened next; notes when there is no more. */
static void push_next(void)
{
    PyObject *list = PyObject_CallNoArgs(push_ahead);
    if (list == NULL)
        PyErr_WriteUnraisable(push_ahead);
    opened = list != NULL && push(list) == 0;
    Py_XDECREF(list);
}

/* Receives the next request, if one comes soon. Returns what libfuse says, or -EAGAIN. Pushes what
 * is read next until the turn ends. */
static int next_request(struct fuse_session *se, uint64_t end)
{
    int result = real_receive(se, &own_buffer);
    if (result != -EAGAIN || !spins)
        return result;
    if (listed && look_ahead != NULL) {
        read_ahead();
        result = real_receive(se, &own_buffer);
        if (result != -EAGAIN)
            return result;
    }
    while (opened && push_ahead != NULL && now_ns() < end) {
        push_next();
        result = real_receive(se, &own_buffer);
        if (result != -EAGAIN)
            return result;
    }
    if (misses >= PATIENCE && misses % RARELY) {
        misses++;
        return result;
    }
    Py_BEGIN_ALLOW_THREADS
    uint64_t deadline = now_ns() + SPIN_NS;
    do
        result = real_receive(se, &own_buffer);
    while (result == -EAGAIN && now_ns() < deadline);
    Py_END_ALLOW_THREADS
    misses = result == -EAGAIN ? misses + 1 : 0;
    return result;
}

/* The operations that are not replaced go to pyfuse3: known by what they leave unanswered. */
void accelerated_process(struct fuse_session *se, const struct fuse_buf *buf)
{
    if (!armed || se != session) {
        real_process(se, buf);
        return;
    }
    unsigned long long before, after;
    uint64_t end = now_ns() + TURN_NS;
    turns++;
    for (;;) {
        received++;
        handed_on = 0;
        before = after = 0;
        for (int i = 0; i < KINDS; i++)
            before += answered[i];
        real_process(se, buf);
        for (int i = 0; i < KINDS; i++)
            after += answered[i];
        /* Whatever was not answered here has left a coroutine that must run before the next. */
        if (handed_on || before == after || fuse_session_exited(se) || now_ns() > end)
            return;
        if (next_request(se, end) <= 0)
            return;
        buf = &own_buffer;
    }
}

/* -- the module ------------------------------------------------------------------------------- */

static PyObject *arm(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"handlers", "without_open", "without_opendir", "spins", NULL};
    PyObject *given;
    int no_open, no_opendir, spin;
    (void)self;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!ppp", names, &PyDict_Type, &given, &no_open,
                                     &no_opendir, &spin))
        return NULL;
    for (int i = 0; i < KINDS; i++) {
        PyObject *handler = PyDict_GetItemString(given, kind_names[i]);
        Py_XINCREF(handler);
        Py_XSETREF(handlers[i], handler);
        answered[i] = 0;
    }
    PyObject *ahead = PyDict_GetItemString(given, "look_ahead");
    Py_XINCREF(ahead);
    Py_XSETREF(look_ahead, ahead);
    ahead = PyDict_GetItemString(given, "push_ahead");
    Py_XINCREF(ahead);
    Py_XSETREF(push_ahead, ahead);
    listed = opened = 0;
    received = turns = 0;
    misses = 0;
    without_open = no_open;
    without_opendir = no_opendir;
    spins = spin;
    session = NULL;
    armed = 1;
    Py_RETURN_NONE;
}

static PyObject *start(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    if (!armed || session == NULL) {
        armed = 0;
        Py_RETURN_FALSE;
    }
    int descriptor = fuse_session_fd(session);
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_TRUE;
}

static PyObject *disarm(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    armed = 0;
    session = NULL;
    for (int i = 0; i < KINDS; i++)
        Py_CLEAR(handlers[i]);
    Py_CLEAR(look_ahead);
    Py_CLEAR(push_ahead);
    Py_RETURN_NONE;
}

static PyObject *counts(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    PyObject *result = PyDict_New();
    for (int i = 0; result != NULL && i < KINDS; i++) {
        PyObject *count = PyLong_FromUnsignedLongLong(answered[i]);
        if (count == NULL || PyDict_SetItemString(result, kind_names[i], count) < 0)
            Py_CLEAR(result);
        Py_XDECREF(count);
    }
    return result;
}

static PyMethodDef methods[] = {
    {"arm", (PyCFunction)(void (*)(void))arm, METH_VARARGS | METH_KEYWORDS,
     "arm(handlers, without_open, without_opendir, spins): serve the session that is made next by these functions."},
    {"start", start, METH_NOARGS,
     "start() -> bool: begin, after the mount was made; False: it goes without this module."},
    {"disarm", disarm, METH_NOARGS, "disarm(): let pyfuse3 alone from now on."},
    {"counts", counts, METH_NOARGS, "counts() -> dict: requests answered here, by kind."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_accelerator", "Answers FUSE requests by plain functions.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__accelerator(void)
{
    Dl_info info;
    void *library = NULL;
    /* By its own handle: our names come first everywhere else. */
    if (dladdr((void *)fuse_reply_err, &info))
        library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (library == NULL) {
        PyErr_SetString(PyExc_ImportError, "libfuse cannot be found");
        return NULL;
    }
    *(void **)&real_new = dlsym(library, "fuse_session_new");
    *(void **)&real_receive = dlsym(library, "fuse_session_receive_buf");
    *(void **)&real_process = dlsym(library, "fuse_session_process_buf");
    if (real_new == NULL || real_receive == NULL || real_process == NULL) {
        PyErr_SetString(PyExc_ImportError, "libfuse has other functions");
        return NULL;
    }
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddIntMacro(made, VERSION) < 0)
        Py_CLEAR(made);
    return made;
}
