package oncekey

// #include "shim.h"
import "C"

import "unsafe"

// Fingerprint is what makes two requests the same request: labelled parts, in order, compared byte for
// byte. The zero value has no parts. At most 64 parts, labels of at most 128 bytes.
type Fingerprint struct {
	parts []part
}

type part struct {
	label string
	value string
}

// Part returns the fingerprint with one more part. The label is what a mismatch will name.
func (f Fingerprint) Part(label, value string) Fingerprint {
	parts := f.parts[:len(f.parts):len(f.parts)]
	return Fingerprint{append(parts, part{label, value})}
}

// PartBytes is Part with bytes for a value. They are not copied: they must stay as they are until the
// fingerprint is no longer used.
func (f Fingerprint) PartBytes(label string, value []byte) Fingerprint {
	return f.Part(label, unsafe.String(unsafe.SliceData(value), len(value)))
}

// small is up to where values are copied together; the largest one beyond is passed where it lies.
const small = 4096

// handle hashes the parts. Whoever gets the handle frees it.
func (f Fingerprint) handle() (C.oncekey_fingerprint, error) {
	var made C.oncekey_fingerprint
	if len(f.parts) > C.ONCEKEY_GO_PARTS {
		return made, invalid("the fingerprint has %d parts, at most %d are allowed", len(f.parts), C.ONCEKEY_GO_PARTS)
	}
	apart, total := len(f.parts), 1
	var lengths [2 * C.ONCEKEY_GO_PARTS]C.size_t
	for i, part := range f.parts {
		lengths[2*i], lengths[2*i+1] = C.size_t(len(part.label)), C.size_t(len(part.value))
		total += len(part.label) + len(part.value)
		if len(part.value) > small && (apart == len(f.parts) || len(part.value) > len(f.parts[apart].value)) {
			apart = i
		}
	}
	var value *C.uint8_t
	if apart < len(f.parts) {
		total -= len(f.parts[apart].value)
		value = (*C.uint8_t)(unsafe.Pointer(unsafe.StringData(f.parts[apart].value)))
	}
	bytes := make([]byte, 0, total)
	for i, part := range f.parts {
		bytes = append(bytes, part.label...)
		if i != apart {
			bytes = append(bytes, part.value...)
		}
	}
	bytes = bytes[:total] // never empty, so that there is an address
	var detail C.oncekey_error
	status := C.oncekey_go_fingerprint((*C.uint8_t)(unsafe.Pointer(&bytes[0])), &lengths[0], C.size_t(len(f.parts)),
		C.size_t(apart), value, &made, &detail)
	return made, failure(status, detail)
}
