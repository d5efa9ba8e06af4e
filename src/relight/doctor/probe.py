"""Asks every Vulkan driver what its devices are, in a process of its own: `python -m relight.doctor.probe`.

A driver or layer that crashes or hangs ends only this process. Structures are declared after the Vulkan 1.4
specification; of VkPhysicalDeviceLimits only what is read has its name.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import cffi

ffi = cffi.FFI()
ffi.cdef(
    """
    typedef struct { int32_t sType; const void *pNext; const char *name; uint32_t version; const char *engine;
                     uint32_t engineVersion; uint32_t apiVersion; } ApplicationInfo;
    typedef struct { int32_t sType; const void *pNext; uint32_t flags; const ApplicationInfo *application;
                     uint32_t layerCount; const char *const *layers; uint32_t extensionCount;
                     const char *const *extensions; } InstanceCreateInfo;
    typedef struct { char name[256]; uint32_t version; } Extension;

    typedef struct { uint32_t a[11]; uint64_t b[2]; uint32_t c[38];
                     uint32_t maxComputeSharedMemorySize; uint32_t after[71]; } Limits;
    typedef struct { uint32_t apiVersion, driverVersion, vendorID, deviceID; int32_t deviceType; char deviceName[256];
                     uint8_t pipelineCacheUUID[16]; Limits limits; uint32_t sparse[5]; } Properties;
    typedef struct { int32_t sType; void *pNext; Properties properties; } Properties2;
    typedef struct { int32_t sType; void *pNext; int32_t driverID; char driverName[256]; char driverInfo[256];
                     uint8_t conformance[4]; } Driver;
    typedef struct { int32_t sType; void *pNext; uint32_t subgroupSize, stages, operations, quad; } Subgroup;
    typedef struct { int32_t sType; void *pNext; uint32_t sets; uint64_t maxMemoryAllocationSize; } Maintenance3;
    typedef struct { int32_t sType; void *pNext; uint64_t maxBufferSize; } Maintenance4;
    typedef struct { int32_t sType; void *pNext; uint32_t domain, bus, device, function; } PciBus;

    typedef struct { int32_t sType; void *pNext; uint32_t features[55]; } Features2;
    typedef struct { int32_t sType; void *pNext; uint32_t storageBuffer16BitAccess, uniform, push, io; } Storage16;
    typedef struct { int32_t sType; void *pNext; uint32_t shaderFloat16, shaderInt8; } Float16Int8;

    typedef struct { uint32_t flags, heap; } MemoryType;
    typedef struct { uint64_t size; uint32_t flags; } Heap;
    typedef struct { int32_t sType; void *pNext; uint32_t typeCount; MemoryType types[32]; uint32_t heapCount;
                     Heap heaps[16]; } Memory2;
    typedef struct { int32_t sType; void *pNext; uint64_t budget[16]; uint64_t usage[16]; } Budget;

    int32_t vkEnumerateInstanceVersion(uint32_t *);
    int32_t vkCreateInstance(const InstanceCreateInfo *, const void *, void **);
    void vkDestroyInstance(void *, const void *);
    int32_t vkEnumeratePhysicalDevices(void *, uint32_t *, void **);
    int32_t vkEnumerateDeviceExtensionProperties(void *, const char *, uint32_t *, Extension *);
    void vkGetPhysicalDeviceProperties2(void *, Properties2 *);
    void vkGetPhysicalDeviceFeatures2(void *, Features2 *);
    void vkGetPhysicalDeviceMemoryProperties2(void *, Memory2 *);
    """
)

PROPERTIES_2, FEATURES_2, MEMORY_2 = 1000059001, 1000059000, 1000059006
DRIVER, SUBGROUP, MAINTENANCE_3, MAINTENANCE_4 = 1000196000, 1000094000, 1000168000, 1000413001
PCI_BUS, STORAGE_16, FLOAT16_INT8, BUDGET = 1000212000, 1000083000, 1000082000, 1000237000
VULKAN_1_3 = 1 << 22 | 3 << 12
NOWHERE = 0xFFFFFFFF
TYPES = ("other", "integrated", "discrete", "virtual", "cpu")
DEVICE_LOCAL = 1
INCOMPLETE = 5


def library_names(platform: str) -> tuple[str, ...]:
    return {"win32": ("vulkan-1.dll",), "darwin": ("libvulkan.1.dylib",)}.get(platform, ("libvulkan.so.1",))


def version_text(version: int) -> str:
    return f"{version >> 22 & 0x7F}.{version >> 12 & 0x3FF}.{version & 0xFFF}"


def chain(*structures: Any) -> Any:
    """The first of the structures, each leading to the next."""
    for here, following in zip(structures, structures[1:], strict=False):
        here.pNext = following
    return structures[0]


def new(kind: str, structure_type: int) -> Any:
    made: Any = ffi.new(f"{kind} *")
    made.sType = structure_type
    return made


def text(characters: Any) -> str:
    return ffi.string(characters).decode(errors="replace")  # type: ignore[union-attr]


def listed(kind: str, fill: Callable[[Any, Any], int]) -> Any:
    """What one of Vulkan's enumerations gives. Raises OSError with its result code."""
    count = ffi.new("uint32_t *")
    code = fill(count, ffi.NULL)
    found = ffi.new(f"{kind}[]", count[0])
    code = code or (fill(count, found) if count[0] else 0)
    if code not in (0, INCOMPLETE):
        raise OSError(f"the Vulkan loader answers {code}")
    return [found[i] for i in range(count[0])]


def describe(vk: Any, handle: Any) -> dict[str, Any]:
    extensions = {
        text(each.name)
        for each in listed(
            "Extension", lambda n, out: vk.vkEnumerateDeviceExtensionProperties(handle, ffi.NULL, n, out)
        )
    }
    driver, subgroup, pci = new("Driver", DRIVER), new("Subgroup", SUBGROUP), new("PciBus", PCI_BUS)
    third, fourth = new("Maintenance3", MAINTENANCE_3), new("Maintenance4", MAINTENANCE_4)
    pci.domain = NOWHERE
    found = chain(new("Properties2", PROPERTIES_2), driver, subgroup, third, fourth, pci)
    vk.vkGetPhysicalDeviceProperties2(handle, found)
    properties = found.properties
    storage, halves = new("Storage16", STORAGE_16), new("Float16Int8", FLOAT16_INT8)
    vk.vkGetPhysicalDeviceFeatures2(handle, chain(new("Features2", FEATURES_2), storage, halves))
    known_address = pci.domain != NOWHERE and "VK_EXT_pci_bus_info" in extensions
    return {
        "name": text(properties.deviceName),
        "type": TYPES[properties.deviceType] if properties.deviceType < len(TYPES) else "other",
        "api_version": version_text(properties.apiVersion),
        "vendor_id": properties.vendorID,
        "device_id": properties.deviceID,
        "driver_id": driver.driverID,
        "driver_name": text(driver.driverName),
        "driver_info": text(driver.driverInfo),
        "pci": f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.{pci.function:x}" if known_address else None,
        "subgroup_size": subgroup.subgroupSize,
        "shared_memory_bytes": properties.limits.maxComputeSharedMemorySize,
        "max_allocation_bytes": third.maxMemoryAllocationSize,
        "max_buffer_bytes": fourth.maxBufferSize or None,
        "storage_16bit": bool(storage.storageBuffer16BitAccess),
        "float16": bool(halves.shaderFloat16),
        "extensions": sorted(extensions),
        "heaps": heaps(vk, handle, "VK_EXT_memory_budget" in extensions),
    }


def heaps(vk: Any, handle: Any, with_budget: bool) -> list[dict[str, Any]]:
    memory, budget = new("Memory2", MEMORY_2), new("Budget", BUDGET)
    if with_budget:
        chain(memory, budget)
    vk.vkGetPhysicalDeviceMemoryProperties2(handle, memory)
    return [
        {
            "bytes": memory.heaps[i].size,
            "device_local": bool(memory.heaps[i].flags & DEVICE_LOCAL),
            "budget_bytes": budget.budget[i] if with_budget else None,
            "usage_bytes": budget.usage[i] if with_budget else None,
        }
        for i in range(memory.heapCount)
    ]


def devices(vk: Any) -> list[dict[str, Any]]:
    """Raises OSError with what the loader answered."""
    application = ffi.new("ApplicationInfo *", {"apiVersion": VULKAN_1_3})
    asked = ffi.new("InstanceCreateInfo *", {"sType": 1, "application": application})
    instance = ffi.new("void **")
    if code := vk.vkCreateInstance(asked, ffi.NULL, instance):
        raise OSError(f"no Vulkan instance: the loader answers {code}")
    handles = listed("void *", lambda n, out: vk.vkEnumeratePhysicalDevices(instance[0], n, out))
    found = [describe(vk, handle) for handle in handles]
    vk.vkDestroyInstance(instance[0], ffi.NULL)
    return found


def probe() -> dict[str, Any]:
    """`loader` (library and version) and `devices` in the loader's order, or `error`."""
    answer: dict[str, Any] = {"loader": None, "version": None, "devices": [], "error": None}
    for name in library_names(sys.platform):
        try:
            vk: Any = ffi.dlopen(name)
        except OSError as error:
            answer["error"] = str(error)
            continue
        answer["loader"] = name
        version = ffi.new("uint32_t *")
        try:
            vk.vkEnumerateInstanceVersion(version)
            answer["version"] = version_text(version[0])
            answer["devices"] = devices(vk)
            answer["error"] = None
        except OSError as error:
            answer["error"] = str(error)
        except AttributeError as error:
            answer["error"] = f"the Vulkan loader is older than 1.1: {error}"
        break
    return answer


def main() -> None:
    outgoing = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what drivers print must not reach the answer
    json.dump(probe(), outgoing)
    outgoing.flush()
    os._exit(0)  # some drivers crash when they are unloaded


if __name__ == "__main__":
    main()
