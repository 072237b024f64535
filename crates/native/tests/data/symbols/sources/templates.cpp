namespace grid {
template <typename Value, int Size> struct Field {
    Value values[Size];
    __attribute__((noinline)) Value sum(const Value &first) const {
        Value total = first;
        for (int index = 0; index < Size; index++) total += values[index];
        return total;
    }
};
__attribute__((noinline)) int operator+(const Field<int, 4> &one, const Field<int, 4> &other) {
    return one.sum(1) + other.sum(2);
}
template struct Field<double, 3>;
}
extern "C" int use_field(const grid::Field<int, 4> &field) {
    auto twice = [&](int value) __attribute__((noinline)) { return field + field + value; };
    return twice(3);
}
