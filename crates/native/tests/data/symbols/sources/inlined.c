/* Functions that are inlined into each other, one that is split, and a call of another library. */
#define PLACE(name) __asm__ volatile(".globl " #name "\n" #name ":" ::: "memory")

extern int external_work(int value);
extern __attribute__((noreturn, cold)) void external_abort(void);
volatile int sink;

static inline __attribute__((always_inline)) int innermost(int value) {
    PLACE(place_innermost);
    sink = value;
    return value * 3;
}

static inline __attribute__((always_inline)) int between(int value) {
    return innermost(value + 1) + sink;
}

__attribute__((noinline)) int outer(int value) {
    int sum = between(value);
    PLACE(place_outer);
    sink = sum;
    return sum;
}

__attribute__((noinline)) int split(int value) {
    if (__builtin_expect(value == 7, 0)) {
        sink = 1;
        sink = value;
        external_abort();
    }
    return external_work(value) + 1;
}

static __attribute__((noinline, used)) int hidden(int value) {
    PLACE(place_hidden);
    sink = value;
    return value;
}

int call_hidden(int value) { return hidden(value) + outer(value); }

int alias_long_name(int value) __attribute__((alias("outer")));
int __outer(int value) __attribute__((alias("outer")));

static int (*choose(void))(int) { return outer; }
int chosen(int value) __attribute__((ifunc("choose")));

__attribute__((noinline)) int written_in_source(int value) {
    sink = value + 5;
    return value - 5;
}
int aliased(int value) __attribute__((alias("written_in_source")));
