// Package seal owns the encryption of stored records: the envelope a record is
// kept in, the epoch keys, and the root key that protects those. It does not
// own where sealed bytes are stored, who may read them, or when to rotate.
//
// # Keys
//
//	root key ──wraps──► key set { derivation secret, epoch keys } ──derive──► one data key per record
//
// The root key (RootKey: a file, or a key-management service) is used when a
// Sealer is opened, reloaded or rotated, and never for a record. The key set is
// stored wrapped, beside the records. Its newest epoch key seals; all of them
// open.
//
// A record's data key is derived from the epoch key and a random nonce, by
// XAES-256-GCM (a NIST SP 800-108r1 key derivation with CMAC, then AES-256-GCM).
// Nobody wraps it and nobody stores it: compared with a random data key that is
// wrapped beside the record, an envelope is 32 bytes shorter and one AES-GCM
// call cheaper, and there is no count of records to watch. Wrapping with
// AES-GCM under a random 96-bit nonce would allow only 2^32 records per epoch
// key (NIST SP 800-38D §8.3), a number that replicas sharing a key cannot keep
// count of. Here a nonce is 192 random bits; after 2^80 records under one epoch
// key the odds that one nonce was used twice are 2^-32. A data key seals one
// record, of at most MaxPlaintext bytes.
//
// # Envelope
//
//	offset  bytes  what
//	     0      1  0xC5
//	     1      1  format, 1
//	     2      4  epoch key id, big-endian
//	     6     24  nonce, random
//	    30      n  ciphertext, as long as the plaintext
//	  30+n     16  tag
//
// Authenticated besides the plaintext: the first six bytes, the seal id, and
// the record's core.Place. The seal id is 16 random bytes made with the key
// set; it stays for the life of the store, through backup and restore.
//
// A change of format gets a new format number and new golden vectors in
// testdata; every format ever written is opened for ever.
//
// # What it cannot stop
//
// Whoever can write the store can delete a record, put back an older one that
// was sealed for the same place (a place without a version, or one in a whole
// store that was set back), and see how many records there are, their keys and
// their sizes. Whoever can read this process's memory has the epoch keys.
//
// # Erasing keys
//
// Buffers that held key bytes are overwritten after use. That shortens how long
// a key lies about and promises no more: the key schedules inside cipher
// objects cannot be reached, a goroutine's stack is copied when it grows, and
// memory may have been swapped out or be part of a core dump. Plaintexts belong
// to the caller and are not erased.
package seal
