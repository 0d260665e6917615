package oncekey

// #include "shim.h"
import "C"

import "unsafe"

// Fingerprint is the identity of a request: labelled parts, in order, compared byte for byte. The zero value
// has no parts. At most 64 parts, with labels of at most 128 bytes.
type Fingerprint struct {
	// The first parts lie inside the struct, so that an ordinary fingerprint allocates nothing.
	first [8]part
	rest  []part
	count int
}

type part struct {
	label string
	value string
}

// Part returns the fingerprint with one more part. A mismatch names the label.
func (f Fingerprint) Part(label, value string) Fingerprint {
	if f.count < len(f.first) {
		f.first[f.count] = part{label, value}
	} else {
		f.rest = append(f.rest[:len(f.rest):len(f.rest)], part{label, value})
	}
	f.count++
	return f
}

// PartBytes is Part with bytes for a value. The bytes are not copied: they must not change until the
// fingerprint is no longer used.
func (f Fingerprint) PartBytes(label string, value []byte) Fingerprint {
	return f.Part(label, unsafe.String(unsafe.SliceData(value), len(value)))
}

func (f *Fingerprint) part(i int) *part {
	if i < len(f.first) {
		return &f.first[i]
	}
	return &f.rest[i-len(f.first)]
}

// small is the largest total size, in bytes, of values that are copied into a submission. In a larger
// fingerprint the largest value is hashed in place, on the thread of its caller.
const small = 4096

// check refuses more parts than a call can carry.
func (f *Fingerprint) check() error {
	if f.count > C.ONCEKEY_GO_PARTS {
		return invalid("the fingerprint has %d parts, at most %d are allowed", f.count, C.ONCEKEY_GO_PARTS)
	}
	return nil
}

// isSmall says whether the parts can be copied into a submission.
func (f *Fingerprint) isSmall() bool {
	total := 0
	for i := range f.count {
		total += len(f.part(i).value)
	}
	return total <= small
}

// handle hashes the parts and returns a fingerprint of C. The caller frees it.
func (f *Fingerprint) handle() (C.oncekey_fingerprint, error) {
	var made C.oncekey_fingerprint
	apart := 0
	for i := range f.count {
		if len(f.part(i).value) > len(f.part(apart).value) {
			apart = i
		}
	}
	value := f.part(apart).value
	lengths := make([]C.uint32_t, 0, 2*C.ONCEKEY_GO_PARTS)
	bytes := []byte{}
	for i := range f.count {
		part := f.part(i)
		lengths = append(lengths, C.uint32_t(len(part.label)), C.uint32_t(len(part.value)))
		bytes = append(bytes, part.label...)
		if i != apart {
			bytes = append(bytes, part.value...)
		}
	}
	bytes = append(bytes, 0) // so that there is an address
	var detail C.oncekey_error
	status := C.oncekey_go_fingerprint((*C.uint8_t)(unsafe.Pointer(&bytes[0])), &lengths[0], C.size_t(f.count),
		C.size_t(apart), (*C.uint8_t)(unsafe.Pointer(unsafe.StringData(value))), C.size_t(len(value)), &made, &detail)
	return made, failure(status, detail)
}
