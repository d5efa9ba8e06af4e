"""The part of ggml's C interface that relight uses, declared for cffi. No logic.

Declared after ggml 0.27's public headers (ggml.h, ggml-alloc.h, ggml-backend.h). The tail of `struct ggml_tensor`
differs between builds, so only its prefix is declared and no tensor is ever embedded or copied by value.
"""

from __future__ import annotations

from typing import Any

import cffi

ffi = cffi.FFI()
ffi.cdef(
    """
    typedef struct ggml_context ggml_context;
    typedef struct ggml_cgraph ggml_cgraph;
    typedef struct ggml_gallocr * ggml_gallocr_t;
    typedef struct ggml_backend * ggml_backend_t;
    typedef struct ggml_backend_reg * ggml_backend_reg_t;
    typedef struct ggml_backend_device * ggml_backend_dev_t;
    typedef struct ggml_backend_buffer_type * ggml_backend_buffer_type_t;
    typedef struct ggml_backend_buffer * ggml_backend_buffer_t;

    typedef struct ggml_tensor {
        int type;
        ggml_backend_buffer_t buffer;
        int64_t ne[4];
        size_t nb[4];
        int op;
        int32_t op_params[16];
        int32_t flags;
        struct ggml_tensor * src[10];
        struct ggml_tensor * view_src;
        size_t view_offs;
        void * data;
    } ggml_tensor;

    struct ggml_init_params { size_t mem_size; void * mem_buffer; bool no_alloc; };

    const char * ggml_version(void);
    size_t ggml_tensor_overhead(void);
    size_t ggml_graph_overhead_custom(size_t size, bool grads);
    ggml_context * ggml_init(struct ggml_init_params params);
    void ggml_free(ggml_context * ctx);
    void ggml_log_set(void (*callback)(int level, const char * text, void * user), void * user);
    const char * ggml_op_desc(const ggml_tensor * t);
    bool ggml_is_contiguous(const ggml_tensor * t);
    size_t ggml_nbytes(const ggml_tensor * t);
    size_t ggml_quantize_chunk(int type, const float * src, void * dst, int64_t start, int64_t nrows,
                               int64_t n_per_row, const float * imatrix);

    ggml_tensor * ggml_new_tensor_4d(ggml_context *, int type, int64_t, int64_t, int64_t, int64_t);
    void ggml_set_output(ggml_tensor *);
    ggml_cgraph * ggml_new_graph_custom(ggml_context *, size_t size, bool grads);
    void ggml_build_forward_expand(ggml_cgraph *, ggml_tensor *);
    int ggml_graph_n_nodes(ggml_cgraph *);
    ggml_tensor * ggml_graph_node(ggml_cgraph *, int i);

    ggml_tensor * ggml_add(ggml_context *, ggml_tensor *, ggml_tensor *);
    ggml_tensor * ggml_sub(ggml_context *, ggml_tensor *, ggml_tensor *);
    ggml_tensor * ggml_mul(ggml_context *, ggml_tensor *, ggml_tensor *);
    ggml_tensor * ggml_scale(ggml_context *, ggml_tensor *, float);
    ggml_tensor * ggml_scale_bias(ggml_context *, ggml_tensor *, float scale, float bias);
    ggml_tensor * ggml_mul_mat(ggml_context *, ggml_tensor *, ggml_tensor *);
    void ggml_mul_mat_set_prec(ggml_tensor *, int prec);
    ggml_tensor * ggml_get_rows(ggml_context *, ggml_tensor *, ggml_tensor *);
    ggml_tensor * ggml_concat(ggml_context *, ggml_tensor *, ggml_tensor *, int dim);
    ggml_tensor * ggml_cont(ggml_context *, ggml_tensor *);
    ggml_tensor * ggml_cast(ggml_context *, ggml_tensor *, int type);
    ggml_tensor * ggml_permute(ggml_context *, ggml_tensor *, int, int, int, int);
    ggml_tensor * ggml_reshape_4d(ggml_context *, ggml_tensor *, int64_t, int64_t, int64_t, int64_t);
    ggml_tensor * ggml_view_4d(ggml_context *, ggml_tensor *, int64_t, int64_t, int64_t, int64_t,
                               size_t, size_t, size_t, size_t offset);
    ggml_tensor * ggml_silu(ggml_context *, ggml_tensor *);
    ggml_tensor * ggml_gelu(ggml_context *, ggml_tensor *);
    ggml_tensor * ggml_gelu_erf(ggml_context *, ggml_tensor *);
    ggml_tensor * ggml_gelu_quick(ggml_context *, ggml_tensor *);
    ggml_tensor * ggml_relu(ggml_context *, ggml_tensor *);
    ggml_tensor * ggml_tanh(ggml_context *, ggml_tensor *);
    ggml_tensor * ggml_leaky_relu(ggml_context *, ggml_tensor *, float slope, bool inplace);
    ggml_tensor * ggml_norm(ggml_context *, ggml_tensor *, float eps);
    ggml_tensor * ggml_rms_norm(ggml_context *, ggml_tensor *, float eps);
    ggml_tensor * ggml_group_norm(ggml_context *, ggml_tensor *, int groups, float eps);
    ggml_tensor * ggml_soft_max_ext(ggml_context *, ggml_tensor *, ggml_tensor * mask, float scale, float max_bias);
    ggml_tensor * ggml_flash_attn_ext(ggml_context *, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v,
                                      ggml_tensor * mask, float scale, float max_bias, float logit_softcap);
    void ggml_flash_attn_ext_set_prec(ggml_tensor *, int prec);
    ggml_tensor * ggml_rope_multi(ggml_context *, ggml_tensor * x, ggml_tensor * positions, ggml_tensor * factors,
                                  int n_dims, int * sections, int mode, int n_ctx_orig, float freq_base,
                                  float freq_scale, float ext_factor, float attn_factor, float beta_fast,
                                  float beta_slow);
    ggml_tensor * ggml_timestep_embedding(ggml_context *, ggml_tensor *, int dim, int max_period);
    ggml_tensor * ggml_conv_2d_direct(ggml_context *, ggml_tensor * kernel, ggml_tensor *, int s0, int s1, int p0,
                                      int p1, int d0, int d1);
    ggml_tensor * ggml_im2col(ggml_context *, ggml_tensor * kernel, ggml_tensor *, int s0, int s1, int p0, int p1,
                              int d0, int d1, bool is_2d, int type);
    ggml_tensor * ggml_upscale(ggml_context *, ggml_tensor *, int factor, int mode);
    ggml_tensor * ggml_pad(ggml_context *, ggml_tensor *, int, int, int, int);

    ggml_gallocr_t ggml_gallocr_new(ggml_backend_buffer_type_t);
    void ggml_gallocr_free(ggml_gallocr_t);
    bool ggml_gallocr_alloc_graph(ggml_gallocr_t, ggml_cgraph *);
    size_t ggml_gallocr_get_buffer_size(ggml_gallocr_t, int buffer_id);
    void ggml_gallocr_reserve_n_size(ggml_gallocr_t, ggml_cgraph *, const int *, const int *, size_t * sizes);

    ggml_backend_reg_t ggml_backend_load(const char * path);
    size_t ggml_backend_dev_count(void);
    ggml_backend_dev_t ggml_backend_dev_get(size_t index);
    const char * ggml_backend_dev_name(ggml_backend_dev_t);
    const char * ggml_backend_dev_description(ggml_backend_dev_t);
    int ggml_backend_dev_type(ggml_backend_dev_t);
    void ggml_backend_dev_memory(ggml_backend_dev_t, size_t * free, size_t * total);
    bool ggml_backend_dev_supports_op(ggml_backend_dev_t, const ggml_tensor *);
    ggml_backend_t ggml_backend_dev_init(ggml_backend_dev_t, const char * params);
    ggml_backend_buffer_type_t ggml_backend_dev_buffer_type(ggml_backend_dev_t);
    ggml_backend_reg_t ggml_backend_dev_backend_reg(ggml_backend_dev_t);
    void * ggml_backend_reg_get_proc_address(ggml_backend_reg_t, const char * name);
    void ggml_backend_free(ggml_backend_t);
    int ggml_backend_graph_compute(ggml_backend_t, ggml_cgraph *);
    size_t ggml_backend_buft_get_alignment(ggml_backend_buffer_type_t);
    size_t ggml_backend_buft_get_max_size(ggml_backend_buffer_type_t);
    size_t ggml_backend_buffer_get_size(ggml_backend_buffer_t);
    void ggml_backend_buffer_free(ggml_backend_buffer_t);
    void ggml_backend_buffer_set_usage(ggml_backend_buffer_t, int usage);
    ggml_backend_buffer_t ggml_backend_cpu_buffer_from_ptr(void * ptr, size_t size);
    int ggml_backend_tensor_alloc(ggml_backend_buffer_t, ggml_tensor *, void * addr);
    ggml_backend_buffer_t ggml_backend_alloc_ctx_tensors_from_buft(ggml_context *, ggml_backend_buffer_type_t);
    size_t ggml_backend_alloc_ctx_tensors_from_buft_size(ggml_context *, ggml_backend_buffer_type_t);
    void ggml_backend_tensor_set(ggml_tensor *, const void *, size_t offset, size_t size);
    void ggml_backend_tensor_get(const ggml_tensor *, void *, size_t offset, size_t size);
    """
)


def text(pointer: Any) -> str:
    """A C string, decoded."""
    found = ffi.string(pointer)
    return found.decode(errors="replace") if isinstance(found, bytes) else found


F32, F16, I32 = 0, 1, 26
PREC_F32 = 10
DEVICE_CPU = 0
ROPE_MROPE = 8
SCALE_NEAREST = 0
USAGE_WEIGHTS = 1
NO_MEMORY = -2
STATUS = {NO_MEMORY: "allocation failed", -1: "failed", 0: "success", 1: "aborted"}
