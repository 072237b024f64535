//! Where the values of variables are: in frames, and in objects of the built-in types. Tables for 3.6 to
//! 3.12 as in [`crate::versions`]; later versions describe themselves.

use profiler_memory::Field;
use profiler_model::RemoteAddr;

/// Every field that is read to show a variable, beside those that are read for stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueOffsets {
    /// `localsplus` of a frame: its variables start here, a pointer each.
    pub frame_variables: u32,
    /// `co_argcount`: positional parameters.
    pub arguments: Field<i32>,
    /// `co_kwonlyargcount`: parameters that can only be given by name.
    pub keyword_arguments: Field<i32>,
    /// `co_flags`: whether there are `*args` and `**kwargs`.
    pub code_flags: Field<i32>,
    /// What a code object says of its variables.
    pub variables: VariableLayout,
    /// `tp_dict` of a type.
    pub type_dict: Field<RemoteAddr>,
    /// `sizeof(PyObject)`: where the content of objects begins that have nothing before it.
    pub body: u32,
    /// `ob_size` of objects of variable size.
    pub item_count: Field<i64>,
    /// `ob_item` of a tuple: its items start here.
    pub tuple_items: u32,
    /// `ob_item` of a list: points to its items.
    pub list_items: Field<RemoteAddr>,
    /// `used` of a set.
    pub set_used: Field<i64>,
    /// `mask` of a set: one less than its table has entries.
    pub set_mask: Field<i64>,
    /// `table` of a set: its entries, each a key and a hash.
    pub set_table: Field<RemoteAddr>,
    /// `ma_used` of a dictionary.
    pub dict_used: Field<i64>,
}

/// How a code object names its variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableLayout {
    /// Local variables, then those that inner functions share, then those of outer functions, each with a
    /// tuple of names of their own (to 3.10).
    Apart {
        /// `co_varnames`.
        locals: Field<RemoteAddr>,
        /// `co_cellvars`.
        shared: Field<RemoteAddr>,
        /// `co_freevars`.
        outer: Field<RemoteAddr>,
    },
    /// All of them in one tuple, `co_localsplusnames` (3.11+).
    Together {
        /// The tuple of names.
        names: Field<RemoteAddr>,
        /// `co_localspluskinds`: a byte for each, see `CELL` and `FREE`.
        kinds: Field<RemoteAddr>,
    },
}

/// `CO_FAST_CELL`: inner functions share the variable, so it lies in a cell.
pub(crate) const CELL: u8 = 0x40;

/// `CO_FAST_FREE`: the variable is one of an outer function, and lies in a cell.
pub(crate) const FREE: u8 = 0x80;

impl ValueOffsets {
    /// Those of 3.6 to 3.12.
    pub(crate) fn of_minor(minor: u8) -> Self {
        let apart = |first| VariableLayout::Apart {
            locals: Field::at(first),
            outer: Field::at(first + 8),
            shared: Field::at(first + 16),
        };
        let mut offsets = ValueOffsets {
            frame_variables: 376,
            arguments: Field::at(16),
            keyword_arguments: Field::at(20),
            code_flags: Field::at(32),
            variables: apart(64),
            type_dict: Field::at(264),
            body: 16,
            item_count: Field::at(16),
            tuple_items: 24,
            list_items: Field::at(24),
            set_used: Field::at(24),
            set_mask: Field::at(32),
            set_table: Field::at(40),
            dict_used: Field::at(16),
        };
        if minor >= 7 {
            offsets.frame_variables = 360;
        }
        if minor >= 8 {
            // Positional-only parameters are counted before.
            offsets.keyword_arguments = Field::at(24);
            offsets.code_flags = Field::at(36);
            offsets.variables = apart(72);
        }
        if minor >= 10 {
            offsets.frame_variables = 352;
        }
        if minor >= 11 {
            offsets.frame_variables = 72;
            offsets.code_flags = Field::at(48);
            offsets.arguments = Field::at(56);
            offsets.keyword_arguments = Field::at(64);
            offsets.variables = VariableLayout::Together { names: Field::at(96), kinds: Field::at(104) };
        }
        if minor >= 12 {
            offsets.arguments = Field::at(52);
            offsets.keyword_arguments = Field::at(60);
        }
        offsets
    }
}
