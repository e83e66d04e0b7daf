// Command generic is the detector of sidecars that are known by their looks:
// image, name, ports and labels. It is started by the daemon, never by hand.
//
// It exists so that a mesh is seen without asking its control plane; a mesh's
// own detector knows more, and its facts win by their confidence. It owns a
// small extract of the inventory. It asks nobody and must never call a workload
// meshed for a proxy that merely runs beside it.
package main
