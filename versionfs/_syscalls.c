/* System calls that Python makes one at a time, or not at all: see syscalls.py.
 *
 * Optional, as all compiled parts: what is here does what the Python code beside it does.
 */

#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Of what the module and its callers tell each other. */
#define VERSION 2

#define SEEN_BYTES 32
#define LONGEST_NAME 255

struct name {
    const char *text;
    Py_ssize_t length;
    const char *seen;
    int same;
};

static uint64_t nanoseconds(const struct timespec *time)
{
    return (uint64_t)time->tv_sec * 1000000000u + (uint64_t)time->tv_nsec;
}

/* Whether what a stat found is what was seen: size, mtime, inode, ctime. */
static int is_as_seen(const struct stat *found, const char *seen)
{
    uint64_t now[SEEN_BYTES / 8] = {
        htole64((uint64_t)found->st_size),
        htole64(nanoseconds(&found->st_mtim)),
        htole64((uint64_t)found->st_ino),
        htole64(nanoseconds(&found->st_ctim)),
    };
    return memcmp(now, seen, SEEN_BYTES) == 0;
}

/* Whether lstat of a path in a folder says what was seen. Adds its size. */
static int is_same(int folder, const char *path, const char *seen, uint64_t *size)
{
    struct stat found;
    if (fstatat(folder, path, &found, AT_SYMLINK_NOFOLLOW) < 0 || !is_as_seen(&found, seen))
        return 0;
    *size += (uint64_t)found.st_size;
    return 1;
}

/* Reads names and what was seen of each; they stay in memory as long as the two tuples do. */
static int read_names(PyObject *names, PyObject *seen, struct name *into)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(names); i++) {
        Py_ssize_t length;
        char *text, *bytes;
        if (PyBytes_AsStringAndSize(PyTuple_GET_ITEM(names, i), &text, &into[i].length) < 0 ||
            PyBytes_AsStringAndSize(PyTuple_GET_ITEM(seen, i), &bytes, &length) < 0)
            return -1;
        if (length != SEEN_BYTES) {
            PyErr_SetString(PyExc_ValueError, "what was seen of a file has 32 bytes");
            return -1;
        }
        into[i].text = text;
        into[i].seen = bytes;
    }
    return 0;
}

static void compare(const char *prefix, Py_ssize_t length, struct name *names, Py_ssize_t count,
                    uint64_t *size)
{
    static const char unseen[SEEN_BYTES];
    char path[PATH_MAX + LONGEST_NAME + 1];
    memcpy(path, prefix, (size_t)length);
    path[length] = 0;
    /* The way to the folder is gone once: that is a quarter of the time. Where it cannot be opened
     * (the path is too long, or there are no descriptors left), each path is looked up whole. */
    int folder = -1;
    if (length && path[length - 1] == '/')
        folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    const char *looked_up = folder >= 0 ? path + length : path;
    for (Py_ssize_t i = 0; i < count; i++) {
        struct name *name = &names[i];
        name->same = 0;
        if (name->length > LONGEST_NAME || memcmp(name->seen, unseen, SEEN_BYTES) == 0)
            continue;
        memcpy(path + length, name->text, (size_t)name->length);
        path[length + name->length] = 0;
        name->same = is_same(folder >= 0 ? folder : AT_FDCWD, looked_up, name->seen, size);
    }
    if (folder >= 0)
        close(folder);
}

static PyObject *result_of(const struct name *names, Py_ssize_t count, uint64_t size)
{
    Py_ssize_t same = 0;
    PyObject *others = PyList_New(0);
    for (Py_ssize_t i = 0; others != NULL && i < count; i++) {
        if (names[i].same) {
            same++;
            continue;
        }
        PyObject *position = PyLong_FromSsize_t(i);
        if (position == NULL || PyList_Append(others, position) < 0)
            Py_CLEAR(others);
        Py_XDECREF(position);
    }
    if (others == NULL)
        return NULL;
    return Py_BuildValue("(NnK)", others, same, (unsigned long long)size);
}

static PyObject *unchanged(PyObject *self, PyObject *args)
{
    PyObject *prefix, *given_names, *given_seen, *result = NULL;
    uint64_t size = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "SO!O!", &prefix, &PyList_Type, &given_names, &PyList_Type,
                          &given_seen))
        return NULL;
    if (PyBytes_GET_SIZE(prefix) > PATH_MAX) {
        PyErr_SetString(PyExc_ValueError, "the prefix is longer than any path");
        return NULL;
    }
    PyObject *names = PyList_AsTuple(given_names), *seen = PyList_AsTuple(given_seen);
    if (names != NULL && seen != NULL) {
        Py_ssize_t count = PyTuple_GET_SIZE(names);
        struct name *all = NULL;
        if (count != PyTuple_GET_SIZE(seen))
            PyErr_SetString(PyExc_ValueError, "not as many names as were seen");
        else if ((all = PyMem_New(struct name, count ? count : 1)) == NULL)
            PyErr_NoMemory();
        else if (read_names(names, seen, all) == 0) {
            Py_BEGIN_ALLOW_THREADS
            compare(PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix), all, count, &size);
            Py_END_ALLOW_THREADS
            result = result_of(all, count, size);
        }
        PyMem_Free(all);
    }
    Py_XDECREF(names);
    Py_XDECREF(seen);
    return result;
}

/* Whether a file has none of the extended attributes that are kept: those of users. */
static int is_plain(int descriptor)
{
    char names[1024];
    ssize_t length = flistxattr(descriptor, names, sizeof names);
    if (length < 0)
        return errno == ENOTSUP;
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(names + at) + 1)
        if (strncmp(names + at, "user.", 5) == 0)
            return 0;
    return 1;
}

struct file {
    const char *path, *seen;
    char *data;
    Py_ssize_t size;
    int descriptor, is_wanted, is_read;
    struct stat found;
};

/* Opens a file, and asks the disk for its bytes: all of a batch, before the first is read. One that
 * is too large for here is read next by others. */
static void open_one(struct file *file)
{
    file->descriptor = -1;
    if (file->size > 0 || file->is_wanted)
        file->descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (file->descriptor < 0)
        return;
    posix_fadvise(file->descriptor, 0, file->size, POSIX_FADV_WILLNEED);
    if (!file->is_wanted) {
        close(file->descriptor);
        file->descriptor = -1;
    }
}

/* Whether a time in nanoseconds has 64 bits: from 1677 to 2262. */
static int is_in_range(const struct timespec *time)
{
    return time->tv_sec > -9223372036 && time->tv_sec < 9223372036;
}

/* Reads a file if it has no extended attributes to keep, and is as it was seen when it was read. A
 * byte behind its end, which it should not have, is read too: some file systems say too little. */
static void read_one(struct file *file)
{
    char more;
    struct iovec parts[] = {{file->data, (size_t)file->size}, {&more, 1}};
    if (file->descriptor < 0)
        return;
    file->is_read = is_plain(file->descriptor) &&
                    preadv(file->descriptor, parts, 2, 0) == file->size &&
                    fstat(file->descriptor, &file->found) == 0 &&
                    file->found.st_size == file->size && is_as_seen(&file->found, file->seen) &&
                    is_in_range(&file->found.st_mtim);
    close(file->descriptor);
}

static PyObject *read_result(const struct file *file, PyObject *data)
{
    const struct stat *found = &file->found;
    if (!file->is_read)
        Py_RETURN_NONE;
    return Py_BuildValue("(OILII)", data, (unsigned)found->st_mode,
                         (long long)nanoseconds(&found->st_mtim), (unsigned)found->st_uid,
                         (unsigned)found->st_gid);
}

/* Takes one (path, size, seen), and makes room for its bytes if it is to be read. */
static PyObject *take_file(PyObject *given, Py_ssize_t most, struct file *file)
{
    Py_ssize_t length;
    memset(file, 0, sizeof *file);
    if (!PyArg_ParseTuple(given, "yny#", &file->path, &file->size, &file->seen, &length))
        return NULL;
    file->is_wanted = length == SEEN_BYTES && file->size >= 0 && file->size <= most;
    PyObject *data = PyBytes_FromStringAndSize(NULL, file->is_wanted ? file->size : 0);
    if (data != NULL)
        file->data = PyBytes_AS_STRING(data);
    return data;
}

static void read_all(struct file *files, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        open_one(&files[i]);
    for (Py_ssize_t i = 0; i < count; i++)
        read_one(&files[i]);
}

static PyObject *read_unchanged(PyObject *self, PyObject *args)
{
    PyObject *given, *result = NULL;
    Py_ssize_t most, taken = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!n", &PyList_Type, &given, &most))
        return NULL;
    /* It keeps paths and what was seen alive, whatever becomes of the list. */
    PyObject *files = PyList_AsTuple(given);
    if (files == NULL)
        return NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(files);
    PyObject **data = PyMem_New(PyObject *, count ? count : 1);
    struct file *all = PyMem_New(struct file, count ? count : 1);
    if (data == NULL || all == NULL) {
        PyErr_NoMemory();
    } else {
        while (taken < count && (data[taken] = take_file(PyTuple_GET_ITEM(files, taken), most,
                                                         &all[taken])) != NULL)
            taken++;
        if (taken == count) {
            Py_BEGIN_ALLOW_THREADS
            read_all(all, count);
            Py_END_ALLOW_THREADS
            result = PyList_New(count);
        }
        for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
            PyObject *found = read_result(&all[i], data[i]);
            if (found == NULL)
                Py_CLEAR(result);
            else
                PyList_SET_ITEM(result, i, found);
        }
    }
    while (taken > 0)
        Py_DECREF(data[--taken]);
    PyMem_Free(data);
    PyMem_Free(all);
    Py_DECREF(files);
    return result;
}

static PyObject *sync_file_system(PyObject *self, PyObject *args)
{
    int descriptor, failed;
    (void)self;
    if (!PyArg_ParseTuple(args, "i", &descriptor))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    failed = syncfs(descriptor);
    Py_END_ALLOW_THREADS
    if (failed)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"unchanged", unchanged, METH_VARARGS,
     "unchanged(prefix, names, seen) -> (others, same, bytes): as syscalls.unchanged."},
    {"read_unchanged", read_unchanged, METH_VARARGS,
     "read_unchanged(files, most) -> list: as syscalls.read_unchanged."},
    {"syncfs", sync_file_system, METH_VARARGS, "syncfs(descriptor): as syscalls.syncfs."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_syscalls", "System calls in batches.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__syscalls(void)
{
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddIntMacro(made, VERSION) < 0)
        Py_CLEAR(made);
    return made;
}
