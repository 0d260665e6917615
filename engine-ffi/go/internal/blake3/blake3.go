// Package blake3 derives keys as BLAKE3 does. Source: the paper "BLAKE3: one function, fast everywhere", section 2.
package blake3

import (
	"encoding/binary"
	"math/bits"
)

var iv = [8]uint32{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

var permutation = [16]int{2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8}

const (
	chunkStart uint32 = 1 << iota
	chunkEnd
	parent
	root
	_ // keyed hash
	keyContext
	keyMaterial
)

const (
	blockLength = 64
	chunkLength = 1024
)

// DeriveKey returns 32 bytes that depend on context, a constant of the program, and on material.
func DeriveKey(context string, material []byte) [32]byte {
	key := hash(iv, []byte(context), keyContext)
	var derived [32]byte
	for i, word := range hash(key, material, keyMaterial) {
		binary.LittleEndian.PutUint32(derived[4*i:], word)
	}
	return derived
}

func hash(key [8]uint32, data []byte, flags uint32) [8]uint32 {
	top := subtree(key, data, 0, flags)
	top.flags |= root
	return top.compress()
}

// node of the tree before its last compression. The root is compressed with the flag root.
type node struct {
	value   [8]uint32
	block   [16]uint32
	counter uint64
	length  uint32
	flags   uint32
}

// subtree over data, whose first chunk has the number counter.
func subtree(key [8]uint32, data []byte, counter uint64, flags uint32) node {
	if len(data) <= chunkLength {
		return chunk(key, data, counter, flags)
	}
	// The left subtree has the largest power of two of chunks that leaves at least one chunk to the right.
	chunks := (len(data) - 1) / chunkLength
	left := 1 << (bits.Len(uint(chunks)) - 1)
	split := left * chunkLength
	a := subtree(key, data[:split], counter, flags)
	b := subtree(key, data[split:], counter+uint64(left), flags)
	joined := node{value: key, length: blockLength, flags: flags | parent}
	leftValue, rightValue := a.compress(), b.compress()
	copy(joined.block[:8], leftValue[:])
	copy(joined.block[8:], rightValue[:])
	return joined
}

func chunk(key [8]uint32, data []byte, counter uint64, flags uint32) node {
	last := node{value: key, counter: counter, flags: flags | chunkStart}
	for {
		var block [blockLength]byte
		length := copy(block[:], data)
		data = data[length:]
		last.length = uint32(length)
		for i := range last.block {
			last.block[i] = binary.LittleEndian.Uint32(block[4*i:])
		}
		if len(data) == 0 {
			last.flags |= chunkEnd
			return last
		}
		last.value = last.compress()
		last.flags = flags
	}
}

func (n *node) compress() [8]uint32 {
	state := [16]uint32{8: iv[0], 9: iv[1], 10: iv[2], 11: iv[3], 12: uint32(n.counter), 13: uint32(n.counter >> 32), 14: n.length, 15: n.flags}
	copy(state[:8], n.value[:])
	message := n.block
	for range 7 {
		for column := range 4 {
			mix(&state, column, 4+column, 8+column, 12+column, message[2*column], message[2*column+1])
		}
		for diagonal := range 4 {
			mix(&state, diagonal, 4+(diagonal+1)%4, 8+(diagonal+2)%4, 12+(diagonal+3)%4, message[8+2*diagonal], message[9+2*diagonal])
		}
		before := message
		for i, from := range permutation {
			message[i] = before[from]
		}
	}
	var value [8]uint32
	for i := range value {
		value[i] = state[i] ^ state[i+8]
	}
	return value
}

func mix(state *[16]uint32, a, b, c, d int, x, y uint32) {
	state[a] += state[b] + x
	state[d] = bits.RotateLeft32(state[d]^state[a], -16)
	state[c] += state[d]
	state[b] = bits.RotateLeft32(state[b]^state[c], -12)
	state[a] += state[b] + y
	state[d] = bits.RotateLeft32(state[d]^state[a], -8)
	state[c] += state[d]
	state[b] = bits.RotateLeft32(state[b]^state[c], -7)
}
