/* A GPU that says it is there and computes nothing: what torch asks of CUDA 13 while its compiler writes a program.

Loaded before torch (bench/absent_gpu.py), so that these functions are found before libcudart's; the library is named libcuda.so.1,
which torch loads by that name. Memory is the host's, and a kernel that is launched does not run. All other functions are the real
library's, and fail for want of a driver. */

#include <stdlib.h>
#include <string.h>

int absent_gpu = 1; /* that this library is loaded */

/* libcudart */
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return 0; }

struct cudaDeviceProp { /* its beginning; torch's convolutions ask for the compute capability */
    char name[256], uuid[16], luid[8];
    unsigned nodes;
    size_t memory, shared;
    int registers, warp;
    size_t pitch;
    int threads, block[3], grid[3];
    size_t constant;
    int major, minor;
};
int cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) { properties->major = 9; return 0; }

int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) { *least = *greatest = 0; return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
int cudaStreamGetCaptureInfo(void *stream, int *status, unsigned long long *id) { *status = 0; return 0; }
int cudaStreamSynchronize(void *stream) { return 0; }
int cudaGetLastError(void) { return 0; }
int cudaPeekAtLastError(void) { return 0; }
int cudaMalloc(void **memory, size_t size) { *memory = malloc(size); return *memory == NULL; }
int cudaFree(void *memory) { free(memory); return 0; }
int cudaHostAlloc(void **memory, size_t size, unsigned flags) { *memory = malloc(size); return *memory == NULL; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) { memcpy(to, from, size); return 0; }
int __cudaGetKernel(void **kernel, const void *function) { *kernel = (void *)function; return 0; }
int __cudaLaunchKernel(void) { return 0; }
int cudaLaunchKernel(void) { return 0; }
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, unsigned long long flags, int *status)
{
    *function = NULL;
    return 0;
}

/* libcuda */
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) { *flags = *active = 0; return 0; }

#define UNCALLED(name) int name(void) { return 1; } /* torch wants them to be there */
UNCALLED(cuCtxGetCurrent) UNCALLED(cuCtxSetCurrent) UNCALLED(cuDeviceGet) UNCALLED(cuDeviceGetAttribute)
UNCALLED(cuDevicePrimaryCtxRetain) UNCALLED(cuFuncGetAttribute) UNCALLED(cuFuncSetAttribute) UNCALLED(cuFuncSetCacheConfig)
UNCALLED(cuGetErrorString) UNCALLED(cuLaunchCooperativeKernel) UNCALLED(cuLaunchKernel) UNCALLED(cuLinkAddData_v2)
UNCALLED(cuLinkComplete) UNCALLED(cuLinkCreate_v2) UNCALLED(cuModuleGetFunction) UNCALLED(cuModuleLoad)
UNCALLED(cuModuleLoadData) UNCALLED(cuModuleLoadDataEx) UNCALLED(cuModuleUnload)
UNCALLED(cuOccupancyMaxActiveBlocksPerMultiprocessor) UNCALLED(cuPointerGetAttribute) UNCALLED(cuTensorMapEncodeTiled)
