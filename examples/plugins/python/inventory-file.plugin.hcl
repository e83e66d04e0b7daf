plugin "discoverer" "inventory-file" {
  protocol = 1

  # -B: leave no bytecode; -E, -s: nobody's variables or packages but the system's.
  command = ["/usr/bin/python3", "-BEs", "./inventory_file.py"]
  files = [
    "./inventory_file.py",
    "./ebpftracer.py",
    "./ebpftracer_inventory.py",
    "./discover_pb2.py",
    "./mesh_pb2.py",
    "./plugin_pb2.py",
    "./sampling_pb2.py",
  ]
}
