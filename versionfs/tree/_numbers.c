/* The table of files that a mount's kernel knows, and whole leaves entered into it at once.
 *
 * It does what InodeTable of numbers.py does, which serves where this was not compiled; and it packs
 * the entries of a leaf as the kernel reads them, which takes a twentieth of the time that Python
 * takes. Numbers are those of vfs/inodes.py: the hash of a tuple of integers.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <linux/fuse.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

#define SHARDS 256
#define SHARD_BITS 8
#define SMALLEST 32
#define COUNT_MAX 0xFFFFFFFFu
#define INDEX_BITS 20
#define FILE_BIT (1ull << 62)

typedef struct {
    size_t capacity, used;
    uint64_t *keys; /* 0: a free slot */
    uint64_t *places;
    uint64_t *parents; /* NULL in a table without */
    uint32_t *counts;
    uint8_t *marks;
} Shard;

typedef struct {
    PyObject_HEAD
    int has_parents;
    Py_ssize_t used;
    Shard shards[SHARDS];
} Table;

/* -- shards: open addressing with linear probing ---------------------------------------------- */

static void clear_shard(Shard *shard)
{
    PyMem_RawFree(shard->keys);
    PyMem_RawFree(shard->places);
    PyMem_RawFree(shard->parents);
    PyMem_RawFree(shard->counts);
    PyMem_RawFree(shard->marks);
    memset(shard, 0, sizeof *shard);
}

static int make_shard(Shard *shard, size_t capacity, int has_parents)
{
    memset(shard, 0, sizeof *shard);
    shard->capacity = capacity;
    shard->keys = PyMem_RawCalloc(capacity, sizeof *shard->keys);
    shard->places = PyMem_RawCalloc(capacity, sizeof *shard->places);
    shard->counts = PyMem_RawCalloc(capacity, sizeof *shard->counts);
    shard->marks = PyMem_RawCalloc(capacity, sizeof *shard->marks);
    if (has_parents)
        shard->parents = PyMem_RawCalloc(capacity, sizeof *shard->parents);
    if (!shard->keys || !shard->places || !shard->counts || !shard->marks ||
        (has_parents && !shard->parents)) {
        clear_shard(shard);
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static Shard *shard_of(Table *table, uint64_t number)
{
    return &table->shards[number & (SHARDS - 1)];
}

static size_t home_of(const Shard *shard, uint64_t number)
{
    return (number >> SHARD_BITS) % shard->capacity;
}

/* Returns the slot of a number, or of the free one where it would go. */
static size_t slot_of(const Shard *shard, uint64_t number)
{
    size_t slot = home_of(shard, number);
    while (shard->keys[slot] && shard->keys[slot] != number)
        if (++slot == shard->capacity)
            slot = 0;
    return slot;
}

static void copy_slot(Shard *to, size_t at, const Shard *from, size_t slot)
{
    to->keys[at] = from->keys[slot];
    to->places[at] = from->places[slot];
    to->counts[at] = from->counts[slot];
    to->marks[at] = from->marks[slot];
    if (to->parents)
        to->parents[at] = from->parents[slot];
}

static int resize(Shard *shard, size_t capacity)
{
    Shard bigger;
    if (make_shard(&bigger, capacity, shard->parents != NULL) < 0)
        return -1;
    for (size_t slot = 0; slot < shard->capacity; slot++)
        if (shard->keys[slot])
            copy_slot(&bigger, slot_of(&bigger, shard->keys[slot]), shard, slot);
    bigger.used = shard->used;
    clear_shard(shard);
    *shard = bigger;
    return 0;
}

/* Closes the gap, so that no probe sequence is interrupted (Knuth 6.4, algorithm R). */
static void remove_slot(Shard *shard, size_t hole)
{
    size_t slot = hole;
    for (;;) {
        if (++slot == shard->capacity)
            slot = 0;
        if (!shard->keys[slot])
            break;
        size_t home = home_of(shard, shard->keys[slot]);
        /* It may move into the hole unless its home lies in (hole, slot], cyclically. */
        if (hole < slot ? (hole < home && home <= slot) : (home > hole || home <= slot))
            continue;
        copy_slot(shard, hole, shard, slot);
        hole = slot;
    }
    shard->keys[hole] = 0;
}

/* Counts a lookup. Returns the place the number had in *held, -1 when it is new. */
static int intern(Table *table, uint64_t number, uint64_t place, uint64_t parent, int64_t *held)
{
    Shard *shard = shard_of(table, number);
    size_t slot = slot_of(shard, number);
    if (shard->keys[slot]) {
        if (shard->counts[slot] != COUNT_MAX)
            shard->counts[slot]++;
        *held = (int64_t)shard->places[slot];
        return 0;
    }
    if ((shard->used + 1) * 5 > shard->capacity * 4) {
        if (resize(shard, shard->capacity * 3 / 2) < 0)
            return -1;
        slot = slot_of(shard, number);
    }
    shard->keys[slot] = number;
    shard->places[slot] = place;
    shard->counts[slot] = 1;
    shard->marks[slot] = 0;
    if (shard->parents)
        shard->parents[slot] = parent;
    shard->used++;
    table->used++;
    *held = -1;
    return 0;
}

/* Takes a lookup back that was just counted. */
static void unintern(Table *table, uint64_t number)
{
    Shard *shard = shard_of(table, number);
    size_t slot = slot_of(shard, number);
    if (!shard->keys[slot] || shard->counts[slot] == COUNT_MAX)
        return;
    if (--shard->counts[slot] == 0) {
        remove_slot(shard, slot);
        shard->used--;
        table->used--;
    }
}

/* -- the type --------------------------------------------------------------------------------- */

static void table_dealloc(Table *table)
{
    for (int i = 0; i < SHARDS; i++)
        clear_shard(&table->shards[i]);
    Py_TYPE(table)->tp_free((PyObject *)table);
}

static int table_init(Table *table, PyObject *args, PyObject *keywords)
{
    static char *names[] = {"parents", NULL};
    int parents = 0;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "|$p", names, &parents))
        return -1;
    table->has_parents = parents;
    table->used = 0;
    for (int i = 0; i < SHARDS; i++) {
        clear_shard(&table->shards[i]);
        if (make_shard(&table->shards[i], SMALLEST, parents) < 0)
            return -1;
    }
    return 0;
}

static int number_argument(PyObject *object, uint64_t *number)
{
    *number = PyLong_AsUnsignedLongLong(object);
    return PyErr_Occurred() ? -1 : 0;
}

/* Returns the slot of a known number, or -1; with an exception if it is no number. */
static Py_ssize_t find_slot(Table *table, PyObject *object, Shard **shard)
{
    uint64_t number;
    if (number_argument(object, &number) < 0)
        return -1;
    *shard = shard_of(table, number);
    size_t slot = slot_of(*shard, number);
    return (*shard)->keys[slot] ? (Py_ssize_t)slot : -1;
}

static PyObject *table_intern(Table *table, PyObject *const *args, Py_ssize_t count)
{
    uint64_t number, place, parent = 0;
    int64_t held;
    if (count < 2 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "intern(number, at, parent=0)");
        return NULL;
    }
    if (number_argument(args[0], &number) < 0 || number_argument(args[1], &place) < 0 ||
        (count == 3 && number_argument(args[2], &parent) < 0) ||
        intern(table, number, place, parent, &held) < 0)
        return NULL;
    return PyLong_FromLongLong(held);
}

static PyObject *table_find(Table *table, PyObject *number)
{
    Shard *shard;
    Py_ssize_t slot = find_slot(table, number, &shard);
    if (slot < 0)
        return PyErr_Occurred() ? NULL : PyLong_FromLong(-1);
    return PyLong_FromUnsignedLongLong(shard->places[slot]);
}

static PyObject *table_parent(Table *table, PyObject *number)
{
    Shard *shard;
    Py_ssize_t slot = find_slot(table, number, &shard);
    if (slot < 0 || !shard->parents)
        return PyErr_Occurred() ? NULL : PyLong_FromLong(0);
    return PyLong_FromUnsignedLongLong(shard->parents[slot]);
}

static PyObject *table_lookups(Table *table, PyObject *number)
{
    Shard *shard;
    Py_ssize_t slot = find_slot(table, number, &shard);
    if (slot < 0)
        return PyErr_Occurred() ? NULL : PyLong_FromLong(0);
    return PyLong_FromUnsignedLong(shard->counts[slot]);
}

static PyObject *table_add(Table *table, PyObject *const *args, Py_ssize_t count)
{
    uint64_t number, place, parent, lookups;
    int64_t held;
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "add(number, at, parent, lookups)");
        return NULL;
    }
    if (number_argument(args[0], &number) < 0 || number_argument(args[1], &place) < 0 ||
        number_argument(args[2], &parent) < 0 || number_argument(args[3], &lookups) < 0 ||
        intern(table, number, place, parent, &held) < 0)
        return NULL;
    Shard *shard = shard_of(table, number);
    shard->counts[slot_of(shard, number)] = lookups > COUNT_MAX ? COUNT_MAX : (uint32_t)lookups;
    Py_RETURN_NONE;
}

static PyObject *table_move(Table *table, PyObject *const *args, Py_ssize_t count)
{
    Shard *shard;
    uint64_t place;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "move(number, at)");
        return NULL;
    }
    Py_ssize_t slot = find_slot(table, args[0], &shard);
    if (PyErr_Occurred() || number_argument(args[1], &place) < 0)
        return NULL;
    if (slot >= 0)
        shard->places[slot] = place;
    Py_RETURN_NONE;
}

static PyObject *table_forget(Table *table, PyObject *const *args, Py_ssize_t count)
{
    Shard *shard;
    uint64_t lookups;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "forget(number, lookups)");
        return NULL;
    }
    Py_ssize_t slot = find_slot(table, args[0], &shard);
    if (PyErr_Occurred() || number_argument(args[1], &lookups) < 0)
        return NULL;
    if (slot < 0 || shard->counts[slot] == COUNT_MAX)
        return PyLong_FromLong(-1);
    if (shard->counts[slot] > lookups) {
        shard->counts[slot] -= (uint32_t)lookups;
        return PyLong_FromLong(-1);
    }
    uint64_t place = shard->places[slot];
    remove_slot(shard, (size_t)slot);
    shard->used--;
    table->used--;
    if (shard->capacity > SMALLEST && shard->used * 4 < shard->capacity) {
        size_t half = shard->capacity / 2;
        if (resize(shard, half < SMALLEST ? SMALLEST : half) < 0)
            PyErr_Clear(); /* it stays as large as it is */
    }
    return PyLong_FromUnsignedLongLong(place);
}

static PyObject *table_mark(Table *table, PyObject *number)
{
    Shard *shard;
    Py_ssize_t slot = find_slot(table, number, &shard);
    if (slot >= 0)
        shard->marks[slot] = 1;
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *table_is_marked(Table *table, PyObject *number)
{
    Shard *shard;
    Py_ssize_t slot = find_slot(table, number, &shard);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(slot >= 0 && shard->marks[slot]);
}

static PyObject *table_iter(Table *table)
{
    PyObject *numbers = PyList_New(0), *iterator;
    for (int i = 0; numbers != NULL && i < SHARDS; i++) {
        Shard *shard = &table->shards[i];
        for (size_t slot = 0; slot < shard->capacity; slot++) {
            if (!shard->keys[slot])
                continue;
            PyObject *number = PyLong_FromUnsignedLongLong(shard->keys[slot]);
            if (number == NULL || PyList_Append(numbers, number) < 0) {
                Py_XDECREF(number);
                Py_CLEAR(numbers);
                break;
            }
            Py_DECREF(number);
        }
    }
    if (numbers == NULL)
        return NULL;
    iterator = PyObject_GetIter(numbers);
    Py_DECREF(numbers);
    return iterator;
}

static Py_ssize_t table_length(Table *table)
{
    return table->used;
}

static PyObject *table_size(Table *table, void *unused)
{
    size_t slots = 0;
    (void)unused;
    for (int i = 0; i < SHARDS; i++)
        slots += table->shards[i].capacity;
    return PyLong_FromSize_t(slots * (table->has_parents ? 29 : 21));
}

/* -- numbers ---------------------------------------------------------------------------------- */

#define MODULUS ((1ull << 61) - 1)

/* hash() of an integer. */
static uint64_t hash_unsigned(uint64_t value)
{
    uint64_t rest = (value & MODULUS) + (value >> 61);
    return rest >= MODULUS ? rest - MODULUS : rest;
}

static uint64_t hash_signed(int64_t value)
{
    if (value >= 0)
        return hash_unsigned((uint64_t)value);
    uint64_t rest = 0 - hash_unsigned(0 - (uint64_t)value);
    return rest == (uint64_t)-1 ? (uint64_t)-2 : rest;
}

/* hash() of a tuple, by the hashes of its items. */
static uint64_t hash_tuple(const uint64_t *hashes, size_t count)
{
    const uint64_t one = 11400714785074694791ull, two = 14029467366897019727ull,
                   five = 2870177450012600261ull;
    uint64_t sum = five;
    for (size_t i = 0; i < count; i++) {
        sum += hashes[i] * two;
        sum = (sum << 31) | (sum >> 33);
        sum *= one;
    }
    sum += count ^ (five ^ 3527539ull);
    return sum == (uint64_t)-1 ? 1546275796ull : sum;
}

static uint64_t number_of(uint64_t content, uint8_t kind, uint16_t mode, int64_t mtime,
                          uint64_t size, uint32_t uid, uint32_t gid)
{
    uint64_t hashes[] = {
        hash_unsigned(content), kind, mode, hash_signed(mtime), hash_unsigned(size), uid, gid,
    };
    return (hash_tuple(hashes, 7) & (FILE_BIT - 1)) | FILE_BIT;
}

/* The number of a name in a directory of a workspace: see workspace/folders.py. */
static uint64_t named_number(uint64_t parent, const char *name, Py_ssize_t length)
{
    const uint64_t hashed = 1ull << 47;
    uint64_t value = 0;
    while (length > 0)
        value = (uint64_t)((((unsigned __int128)value << 8) | (uint8_t)name[--length]) % MODULUS);
    uint64_t hashes[] = {hash_unsigned(parent), value};
    return (hash_tuple(hashes, 2) & (hashed - 1)) | hashed;
}

static PyObject *py_named_number(PyObject *self, PyObject *args)
{
    unsigned long long parent;
    const char *name;
    Py_ssize_t length;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ky#", &parent, &name, &length))
        return NULL;
    return PyLong_FromUnsignedLongLong(named_number(parent, name, length));
}

static PyObject *py_number(PyObject *self, PyObject *args)
{
    unsigned long long content, size;
    long long mtime;
    unsigned int kind, mode, uid, gid;
    (void)self;
    if (!PyArg_ParseTuple(args, "KIILKII", &content, &kind, &mode, &mtime, &size, &uid, &gid))
        return NULL;
    return PyLong_FromUnsignedLongLong(
        number_of(content, (uint8_t)kind, (uint16_t)mode, mtime, size, uid, gid));
}

/* -- entries ---------------------------------------------------------------------------------- */

static PyTypeObject TableType;

/* Whether a dictionary has an integer for a key: 1, 0, or -1 with an exception. */
static int has_key(PyObject *dictionary, uint64_t number)
{
    PyObject *key = PyLong_FromUnsignedLongLong(number);
    int found = key == NULL ? -1 : PyDict_Contains(dictionary, key);
    Py_XDECREF(key);
    return found;
}

enum { KINDS, MODES, SIZES, MTIMES, UIDS, GIDS, CONTENTS, COLUMNS };

static const Py_ssize_t widths[COLUMNS] = {1, 2, 8, 8, 4, 4, 32};

static void split_time(int64_t ns, uint64_t *seconds, uint32_t *rest)
{
    int64_t whole = ns / 1000000000, part = ns % 1000000000;
    if (part < 0) {
        part += 1000000000;
        whole--;
    }
    *seconds = (uint64_t)whole;
    *rest = (uint32_t)part;
}

/* What of a leaf's entries the kernel is given; by the columns of the leaf.
 *
 * With a parent, files have the numbers that a workspace gives to names in it, with ``bits`` set in
 * what the kernel is told, and ``taken`` are numbers that directories have. */
static PyObject *pack_entries(PyObject *self, PyObject *args, PyObject *keywords)
{
    static char *parameters[] = {"table",   "place",    "offset",  "room",   "seconds", "uid",
                                 "gid",     "names",    "columns", "extras", "special", "parent",
                                 "bits",    "taken",    NULL};
    static const uint32_t types[] = {0, 0100000, 0100000, 0040000, 0120000};
    Table *table;
    unsigned long long place, offset, parent = 0, bits = 0;
    Py_ssize_t room;
    double seconds;
    long long uid, gid;
    PyObject *names, *columns, *extras, *special, *taken = NULL, *result = NULL;
    Py_buffer views[COLUMNS];
    int held_views = 0;
    (void)self;
    if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!KKndLLO!O!O!O|KKO!", parameters,
                                     &TableType,
                                     &table, &place, &offset, &room, &seconds, &uid, &gid,
                                     &PyList_Type, &names, &PyTuple_Type, &columns, &PyDict_Type,
                                     &extras, &special, &parent, &bits, &PyDict_Type, &taken))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(names);
    if (PyTuple_GET_SIZE(columns) != COLUMNS || (parent && taken == NULL)) {
        PyErr_SetString(PyExc_ValueError, "seven columns, and what is taken in a workspace");
        return NULL;
    }
    for (; held_views < COLUMNS; held_views++) {
        Py_buffer *view = &views[held_views];
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(columns, held_views), view, PyBUF_SIMPLE) < 0)
            goto end;
        if (view->len < count * widths[held_views]) {
            held_views++;
            PyErr_SetString(PyExc_ValueError, "a column is too short");
            goto end;
        }
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, room);
    if (bytes == NULL)
        goto end;
    char *out = PyBytes_AS_STRING(bytes);
    Py_ssize_t used = 0, fresh = 0, index = (Py_ssize_t)(place & ((1u << INDEX_BITS) - 1)),
               first = index;
    uint64_t whole_seconds = (uint64_t)seconds;
    for (; index < count; index++, place++) {
        PyObject *name = PyList_GET_ITEM(names, index);
        if (!PyBytes_Check(name)) {
            PyErr_SetString(PyExc_TypeError, "a name that is not bytes");
            break;
        }
        Py_ssize_t length = PyBytes_GET_SIZE(name);
        Py_ssize_t step = (FUSE_NAME_OFFSET_DIRENTPLUS + length + 7) & ~(Py_ssize_t)7;
        if (step > room - used)
            break;
        uint8_t kind = ((uint8_t *)views[KINDS].buf)[index];
        uint16_t mode;
        uint64_t size, content, number = 0;
        int64_t mtime, held = -1;
        uint32_t own_uid, own_gid;
        memcpy(&mode, (char *)views[MODES].buf + 2 * index, 2);
        memcpy(&size, (char *)views[SIZES].buf + 8 * index, 8);
        memcpy(&mtime, (char *)views[MTIMES].buf + 8 * index, 8);
        memcpy(&own_uid, (char *)views[UIDS].buf + 4 * index, 4);
        memcpy(&own_gid, (char *)views[GIDS].buf + 4 * index, 4);
        memcpy(&content, (char *)views[CONTENTS].buf + 32 * index, 8);
        int is_special = kind == 3 || kind > 4, is_ours = 0;
        if (!is_special && parent) {
            number = named_number(parent, PyBytes_AS_STRING(name), length);
            if (intern(table, number, place, parent, &held) < 0)
                break;
            Shard *shard = shard_of(table, number);
            int collides = held < 0 ? has_key(taken, number)
                                    : (uint64_t)held != place || shard->parents == NULL ||
                                          shard->parents[slot_of(shard, number)] != parent;
            if (collides)
                unintern(table, number);
            if (collides < 0)
                break;
            is_special = collides;
            is_ours = !collides;
            held = collides ? -2 : held;
        } else if (!is_special) {
            is_special = PyDict_GET_SIZE(extras) ? has_key(extras, (uint64_t)index) : 0;
            if (is_special < 0)
                break;
            if (!is_special) {
                number = number_of(content, kind, mode, mtime, size, own_uid, own_gid);
                if (intern(table, number, place, 0, &held) < 0)
                    break;
                is_ours = held < 0 || (uint64_t)held == place;
            }
        }
        if (is_ours) {
            fresh += held < 0;
            number |= bits;
        } else {
            /* A directory, a symlink, or a number that something else has: for Python, which is told
             * whether a lookup was counted already (-2: none was). */
            PyObject *answer =
                PyObject_CallFunction(special, "nL", index, (long long)(is_special ? -2 : held));
            if (answer == NULL)
                break;
            number = PyLong_AsUnsignedLongLong(answer);
            Py_DECREF(answer);
            if (PyErr_Occurred())
                break;
        }
        struct fuse_direntplus *entry = (struct fuse_direntplus *)(out + used);
        memset(entry, 0, FUSE_NAME_OFFSET_DIRENTPLUS);
        struct fuse_attr *attr = &entry->entry_out.attr;
        entry->entry_out.nodeid = number;
        entry->entry_out.entry_valid = entry->entry_out.attr_valid = whole_seconds;
        attr->ino = number;
        attr->mode = mode | types[kind];
        attr->nlink = 1;
        attr->size = kind == 3 ? 0 : size;
        attr->blocks = (attr->size + 511) >> 9;
        split_time(mtime, &attr->mtime, &attr->mtimensec);
        attr->atime = attr->ctime = attr->mtime;
        attr->atimensec = attr->ctimensec = attr->mtimensec;
        attr->uid = uid < 0 ? own_uid : (uint32_t)uid;
        attr->gid = gid < 0 ? own_gid : (uint32_t)gid;
        attr->blksize = 4096;
        entry->dirent.ino = number;
        entry->dirent.off = ++offset;
        entry->dirent.namelen = (uint32_t)length;
        entry->dirent.type = attr->mode >> 12;
        memcpy(entry->dirent.name, PyBytes_AS_STRING(name), (size_t)length);
        memset(entry->dirent.name + length, 0,
               (size_t)(step - (Py_ssize_t)FUSE_NAME_OFFSET_DIRENTPLUS - length));
        used += step;
    }
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (type != NULL && !used && !fresh) {
        PyErr_Restore(type, value, trace);
        Py_DECREF(bytes);
        goto end;
    }
    /* Entries that are given cannot be taken back: what is wrong is found when those behind are
     * asked for. */
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(trace);
    if (_PyBytes_Resize(&bytes, used) == 0)
        result = Py_BuildValue("Nnn", bytes, index - first, fresh);
end:
    while (held_views > 0)
        PyBuffer_Release(&views[--held_views]);
    return result;
}

/* -- the module ------------------------------------------------------------------------------- */

static PyMethodDef table_methods[] = {
    {"intern", (PyCFunction)(void (*)(void))table_intern, METH_FASTCALL, NULL},
    {"find", (PyCFunction)table_find, METH_O, NULL},
    {"parent", (PyCFunction)table_parent, METH_O, NULL},
    {"lookups", (PyCFunction)table_lookups, METH_O, NULL},
    {"add", (PyCFunction)(void (*)(void))table_add, METH_FASTCALL, NULL},
    {"move", (PyCFunction)(void (*)(void))table_move, METH_FASTCALL, NULL},
    {"forget", (PyCFunction)(void (*)(void))table_forget, METH_FASTCALL, NULL},
    {"mark", (PyCFunction)table_mark, METH_O, NULL},
    {"is_marked", (PyCFunction)table_is_marked, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef table_attributes[] = {
    {"size_bytes", (getter)table_size, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PySequenceMethods table_sequence = {.sq_length = (lenfunc)table_length};

static PyTypeObject TableType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "versionfs.tree._numbers.InodeTable",
    .tp_basicsize = sizeof(Table),
    .tp_dealloc = (destructor)table_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "See InodeTable of versionfs.tree.numbers.",
    .tp_iter = (getiterfunc)table_iter,
    .tp_methods = table_methods,
    .tp_getset = table_attributes,
    .tp_as_sequence = &table_sequence,
    .tp_init = (initproc)table_init,
    .tp_new = PyType_GenericNew,
};

static PyMethodDef methods[] = {
    {"number", py_number, METH_VARARGS,
     "number(content, kind, mode, mtime_ns, size, uid, gid) -> int: a file's inode number."},
    {"named_number", py_named_number, METH_VARARGS,
     "named_number(parent, name) -> int: the number of a name in a workspace."},
    {"pack_entries", (PyCFunction)(void (*)(void))pack_entries, METH_VARARGS | METH_KEYWORDS,
     "pack_entries(...) -> (bytes, entries, new ones): see versionfs.tree.packing."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_numbers", "Inode numbers, compiled.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__numbers(void)
{
    if (PyType_Ready(&TableType) < 0)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made != NULL && PyModule_AddObjectRef(made, "InodeTable", (PyObject *)&TableType) < 0)
        Py_CLEAR(made);
    return made;
}
