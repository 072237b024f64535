/* Prints where the CPython whose headers this is compiled against keeps what the profiler reads: one
 * line for each field, named as in the struct `Offsets` of the crate `python`. Fields that a version does
 * not have are not printed. Compiled by `cargo xtask check-offsets`, once for each interpreter. */
#define Py_BUILD_CORE 1
#include <Python.h>
#include <frameobject.h>
#if PY_VERSION_HEX < 0x030B0000
#include <longintrepr.h>
#endif
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#if PY_VERSION_HEX >= 0x03080000
#include <internal/pycore_pystate.h>
#elif PY_VERSION_HEX >= 0x03070000
#include <internal/pystate.h>
#endif
#if PY_VERSION_HEX >= 0x03090000
#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
#endif
#if PY_VERSION_HEX >= 0x030B0000
#include <internal/pycore_object.h>
#include <internal/pycore_code.h>
#include <internal/pycore_dict.h>
#include <internal/pycore_frame.h>
#include <internal/pycore_long.h>
#endif
#if PY_VERSION_HEX >= 0x030E0000
#include <internal/pycore_debug_offsets.h>
#include <internal/pycore_interpframe.h>
#include <internal/pycore_stackref.h>
#endif

#define NUMBER(name, value) printf("%s %lu\n", name, (unsigned long)(value))
#define FIELD(name, type, member) NUMBER(name, offsetof(type, member))

static void runtime(void) {
#if PY_VERSION_HEX >= 0x03070000
    FIELD("runtime.interpreters_head", _PyRuntimeState, interpreters.head);
#endif
#if PY_VERSION_HEX >= 0x03070000 && PY_VERSION_HEX < 0x030C0000
    FIELD("runtime.gil", _PyRuntimeState, ceval.gil);
#endif
#if PY_VERSION_HEX >= 0x03070000 && PY_VERSION_HEX < 0x03090000
    FIELD("runtime.gc_collecting", _PyRuntimeState, gc.collecting);
#endif
}

static void interpreter(void) {
    FIELD("interpreter.next", PyInterpreterState, next);
#if PY_VERSION_HEX >= 0x03070000
    FIELD("interpreter.id", PyInterpreterState, id);
#endif
#if PY_VERSION_HEX >= 0x030B0000
    FIELD("interpreter.threads_head", PyInterpreterState, threads.head);
#else
    FIELD("interpreter.threads_head", PyInterpreterState, tstate_head);
#endif
#if PY_VERSION_HEX >= 0x030C0000
    FIELD("interpreter.gil", PyInterpreterState, ceval.gil);
    FIELD("interpreter.modules", PyInterpreterState, imports.modules);
#else
    FIELD("interpreter.modules", PyInterpreterState, modules);
#endif
#if PY_VERSION_HEX >= 0x03090000
    FIELD("interpreter.gc_collecting", PyInterpreterState, gc.collecting);
#endif
#if PY_VERSION_HEX >= 0x030E0000
    FIELD("interpreter.code_count", PyInterpreterState, _code_object_generation);
#elif PY_VERSION_HEX >= 0x030D0000
    FIELD("interpreter.code_count", PyInterpreterState, func_state.next_version);
#endif
}

static void gil(void) {
#if PY_VERSION_HEX >= 0x03070000
    FIELD("gil.last_holder", struct _gil_runtime_state, last_holder);
    FIELD("gil.locked", struct _gil_runtime_state, locked);
    FIELD("gil.switch_number", struct _gil_runtime_state, switch_number);
    NUMBER("gil.size", sizeof(struct _gil_runtime_state));
#if PY_VERSION_HEX >= 0x030E0000
    NUMBER("gil.code_count",
           offsetof(PyInterpreterState, _code_object_generation) - offsetof(PyInterpreterState, _gil));
#elif PY_VERSION_HEX >= 0x030D0000
    NUMBER("gil.code_count",
           offsetof(PyInterpreterState, func_state.next_version) - offsetof(PyInterpreterState, _gil));
#endif
#endif
#ifdef Py_GIL_DISABLED
    FIELD("gil.enabled", struct _gil_runtime_state, enabled);
#endif
}

static void thread(void) {
    FIELD("thread.next", PyThreadState, next);
    FIELD("thread.interpreter", PyThreadState, interp);
#if PY_VERSION_HEX >= 0x030D0000
    FIELD("thread.frame", PyThreadState, current_frame);
#elif PY_VERSION_HEX >= 0x030B0000
    FIELD("thread.frame", PyThreadState, cframe);
    FIELD("thread.cframe_current_frame", _PyCFrame, current_frame);
#else
    FIELD("thread.frame", PyThreadState, frame);
#endif
    FIELD("thread.thread_id", PyThreadState, thread_id);
#if PY_VERSION_HEX >= 0x030B0000
    FIELD("thread.native_thread_id", PyThreadState, native_thread_id);
    FIELD("thread.datastack_chunk", PyThreadState, datastack_chunk);
    FIELD("thread.datastack_top", PyThreadState, datastack_top);
#endif
#if PY_VERSION_HEX >= 0x030F0000
    FIELD("thread.base_frame", PyThreadState, base_frame);
#endif
}

#if PY_VERSION_HEX >= 0x030B0000
static void frame(void) {
    FIELD("frame.previous", _PyInterpreterFrame, previous);
#if PY_VERSION_HEX >= 0x030D0000
    FIELD("frame.code", _PyInterpreterFrame, f_executable);
    FIELD("frame.instruction", _PyInterpreterFrame, instr_ptr);
#else
    FIELD("frame.code", _PyInterpreterFrame, f_code);
    FIELD("frame.instruction", _PyInterpreterFrame, prev_instr);
#endif
    FIELD("frame.owner", _PyInterpreterFrame, owner);
#if PY_VERSION_HEX >= 0x030E0000 && defined(Py_GIL_DISABLED)
    FIELD("frame.bytecode_copy", _PyInterpreterFrame, tlbc_index);
#endif
#if PY_VERSION_HEX < 0x030C0000
    FIELD("frame.is_entry", _PyInterpreterFrame, is_entry);
#endif
    /* Every owner after "by a frame object" is a shim: the mask of these values. */
    unsigned long shims = 0;
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030F0000
    shims |= 1ul << FRAME_OWNED_BY_CSTACK;
#endif
#if PY_VERSION_HEX >= 0x030E0000
    shims |= 1ul << FRAME_OWNED_BY_INTERPRETER;
    NUMBER("frame.code_tag_bits", __builtin_popcountl(Py_TAG_BITS));
#else
    NUMBER("frame.code_tag_bits", 0);
#endif
    NUMBER("frame.shim_owners", shims);
}
#else
static void frame(void) {
    FIELD("frame.previous", PyFrameObject, f_back);
    FIELD("frame.code", PyFrameObject, f_code);
    FIELD("frame.instruction", PyFrameObject, f_lasti);
#if PY_VERSION_HEX >= 0x030A0000
    FIELD("frame.executing", PyFrameObject, f_state);
    NUMBER("frame.executing_value", FRAME_EXECUTING);
#else
    FIELD("frame.executing", PyFrameObject, f_executing);
    NUMBER("frame.executing_value", 1);
#endif
    NUMBER("frame.code_tag_bits", 0);
    NUMBER("frame.shim_owners", 0);
}
#endif

static void code(void) {
    FIELD("code.filename", PyCodeObject, co_filename);
    FIELD("code.name", PyCodeObject, co_name);
    FIELD("code.first_line", PyCodeObject, co_firstlineno);
#if PY_VERSION_HEX >= 0x030A0000
    FIELD("code.line_table", PyCodeObject, co_linetable);
#else
    FIELD("code.line_table", PyCodeObject, co_lnotab);
#endif
#if PY_VERSION_HEX >= 0x030B0000
    FIELD("code.qualname", PyCodeObject, co_qualname);
    FIELD("code.bytecode", PyCodeObject, co_code_adaptive);
    FIELD("code.bytecode_units", PyVarObject, ob_size);
#if PY_VERSION_HEX >= 0x030C0000
    FIELD("code.version", PyCodeObject, co_version);
#endif
#if PY_VERSION_HEX >= 0x030E0000 && defined(Py_GIL_DISABLED)
    FIELD("code.bytecode_copies", PyCodeObject, co_tlbc);
#endif
#endif
}

static void objects(void) {
    FIELD("object.object_type", PyObject, ob_type);
    FIELD("object.type_name", PyTypeObject, tp_name);
    FIELD("object.type_flags", PyTypeObject, tp_flags);
    FIELD("object.type_basic_size", PyTypeObject, tp_basicsize);
    FIELD("object.type_dict_offset", PyTypeObject, tp_dictoffset);
    FIELD("object.type_cached_keys", PyHeapTypeObject, ht_cached_keys);
#if PY_VERSION_HEX >= 0x030B0000
    /* Only its address is used. */
    PyObject *object = (PyObject *)0x1000;
#define BEFORE(name, function) NUMBER(name, (char *)object - (char *)function(object))
#if PY_VERSION_HEX < 0x030C0000
    BEFORE("object.values_before", _PyObject_ValuesPointer);
    BEFORE("object.dict_before", _PyObject_ManagedDictPointer);
#elif PY_VERSION_HEX < 0x030D0000
    BEFORE("object.dict_or_values_before", _PyObject_DictOrValuesPointer);
#else
    BEFORE("object.dict_before", _PyObject_ManagedDictPointer);
#endif
#endif
}

static void strings(void) {
    PyASCIIObject text;
    memset(&text, 0, sizeof text);
    text.state.kind = 1;
    unsigned int state;
    memcpy(&state, &text.state, sizeof state);
    FIELD("unicode.length", PyASCIIObject, length);
    FIELD("unicode.state", PyASCIIObject, state);
    NUMBER("unicode.kind_shift", __builtin_ctz(state));
    NUMBER("unicode.ascii_data", sizeof(PyASCIIObject));
    NUMBER("unicode.compact_data", sizeof(PyCompactUnicodeObject));
    FIELD("unicode.data", PyUnicodeObject, data);
    FIELD("bytes.length", PyVarObject, ob_size);
    FIELD("bytes.data", PyBytesObject, ob_sval);
}

static void integers(void) {
#if PY_VERSION_HEX >= 0x030C0000
    FIELD("long.size", PyLongObject, long_value.lv_tag);
    FIELD("long.digits", PyLongObject, long_value.ob_digit);
    NUMBER("long.tag_bits", NON_SIZE_BITS);
#else
    FIELD("long.size", PyVarObject, ob_size);
    FIELD("long.digits", struct _longobject, ob_digit);
    NUMBER("long.tag_bits", 0);
#endif
}

static void dictionaries(void) {
    FIELD("dict.keys", PyDictObject, ma_keys);
    FIELD("dict.values", PyDictObject, ma_values);
#if PY_VERSION_HEX < 0x030B0000
    /* A plain array of values. */
    NUMBER("dict.values_start", 0);
#endif
    /* To 3.10 no installed header describes the keys: they are read from debug information instead. */
#if PY_VERSION_HEX >= 0x030B0000
    FIELD("dict.log2_index_slots", PyDictKeysObject, dk_log2_size);
    FIELD("dict.log2_index_bytes", PyDictKeysObject, dk_log2_index_bytes);
    FIELD("dict.kind", PyDictKeysObject, dk_kind);
    FIELD("dict.entry_count", PyDictKeysObject, dk_nentries);
    FIELD("dict.indices", PyDictKeysObject, dk_indices);
    FIELD("dict.values_start", struct _dictvalues, values);
#endif
}

/* What is read only to show variables. */
static void values(void) {
#if PY_VERSION_HEX >= 0x030B0000
    FIELD("values.frame_variables", _PyInterpreterFrame, localsplus);
    FIELD("values.names", PyCodeObject, co_localsplusnames);
    FIELD("values.kinds", PyCodeObject, co_localspluskinds);
#else
    FIELD("values.frame_variables", PyFrameObject, f_localsplus);
    FIELD("values.locals", PyCodeObject, co_varnames);
    FIELD("values.shared", PyCodeObject, co_cellvars);
    FIELD("values.outer", PyCodeObject, co_freevars);
#endif
    FIELD("values.arguments", PyCodeObject, co_argcount);
    FIELD("values.keyword_arguments", PyCodeObject, co_kwonlyargcount);
    FIELD("values.code_flags", PyCodeObject, co_flags);
    FIELD("values.type_dict", PyTypeObject, tp_dict);
    NUMBER("values.body", sizeof(PyObject));
    FIELD("values.item_count", PyVarObject, ob_size);
    FIELD("values.tuple_items", PyTupleObject, ob_item);
    FIELD("values.list_items", PyListObject, ob_item);
    FIELD("values.set_used", PySetObject, used);
    FIELD("values.set_mask", PySetObject, mask);
    FIELD("values.set_table", PySetObject, table);
    FIELD("values.dict_used", PyDictObject, ma_used);
}

int main(int count, char **arguments) {
    (void)arguments;
#if PY_VERSION_HEX >= 0x030E0000
    /* With an argument: the bytes with which such an interpreter describes itself. */
    if (count > 1) {
        static const _Py_DebugOffsets described = _Py_DebugOffsets_INIT(_Py_Debug_Cookie);
        return fwrite(&described, sizeof described, 1, stdout) != 1;
    }
#endif
    NUMBER("version", PY_VERSION_HEX);
    runtime();
    interpreter();
    gil();
    thread();
    frame();
    code();
    objects();
    strings();
    integers();
    dictionaries();
    values();
    return 0;
}
