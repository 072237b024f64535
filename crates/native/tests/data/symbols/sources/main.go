package main

import "os"

//go:noinline
func add(one, other int) int {
	if one > 1000 {
		os.Exit(1)
	}
	return one + other
}

type counter struct{ total int }

//go:noinline
func (c *counter) count(value int) { c.total += value }

func main() {
	c := &counter{}
	for i := 0; i < 10; i++ {
		c.count(add(i, 1))
	}
	println(c.total)
}
