//go:build !oncekey_static

package oncekey

// #cgo pkg-config: oncekey
import "C"
