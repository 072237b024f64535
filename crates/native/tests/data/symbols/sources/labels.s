# Functions as assembly has them: without a size, without a type, in two executable segments.
    .text
    .globl unsized_function
    .type unsized_function, @function
unsized_function:
    nop
    nop
    nop
    ret
    .globl untyped_label
untyped_label:
    nop
    ret
    .globl sized_function
    .type sized_function, @function
sized_function:
    nop
inside_label:
    ret
    .size sized_function, . - sized_function
    .skip 14, 0xcc
    .section .text.second, "ax"
    .globl second_function
    .type second_function, @function
second_function:
    nop
    ret
    .size second_function, . - second_function
