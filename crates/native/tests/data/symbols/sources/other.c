/* Shares types with inlined.c, so that dwz has something to move. */
struct first { int a, b, c; };
struct second { struct first one, two; long lengths[12]; };
#define PLACE(name) PLACE_OF(name)
#define PLACE_OF(name) __asm__ volatile(".globl " #name "\n" #name ":" ::: "memory")
volatile int other_sink;
static inline __attribute__((always_inline)) int shared_inline(struct second *value) {
    PLACE(PLACE_NAME);
    other_sink = value->one.a;
    return value->two.b;
}
int OUTER_NAME(struct second *value) { return shared_inline(value) + 1; }
