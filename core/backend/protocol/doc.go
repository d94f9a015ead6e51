// Package protocol is version 1 of the contract between host agent and backend: every message as
// a type, and strict, bounded decoding of what arrives.
//
// A frame is one JSON object {"event": name, "id": optional, "data": {…}}. docs/protocol.md says
// what each message means; units are in the field names (_mb MiB, _gb GiB, _mbps 10^6 bit/s).
// The agent and the sandbox backend share these types and nothing else.
package protocol
