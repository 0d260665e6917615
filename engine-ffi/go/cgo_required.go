//go:build !cgo

package oncekey

// Without cgo only this file of the package is compiled, and the compiler shows this sentence.
const _ int = "the package oncekey needs cgo: build with CGO_ENABLED=1 and a C compiler such as gcc"
